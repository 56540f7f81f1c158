"""Both themes: readable, complete, and in force at once."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import re
import sys

import pytest
from PySide6.QtCore import QSize
from PySide6.QtGui import QColor, QFont, QFontInfo, QFontMetrics, QIcon, QImage, QPalette
from PySide6.QtWidgets import QCheckBox, QComboBox, QLabel, QPushButton, QToolButton

from studio.app import icons, theme
from studio.app.theme import DARK, LIGHT, Theme, apply_theme, contrast, current_theme, ramp
from studio.resource_files import resource

THEMES = pytest.mark.parametrize("wanted", [DARK, LIGHT], ids=["dark", "light"])
TEXTS = ("text", "muted", "link", "good", "warn", "bad")
GROUNDS = ("background", "surface", "raised", "selection")


def colors(image: QImage) -> dict[str, int]:
    """How often each colour occurs."""
    counts: dict[str, int] = {}
    for y, x in itertools.product(range(image.height()), range(image.width())):
        name = image.pixelColor(x, y).name()
        counts[name] = counts.get(name, 0) + 1
    return counts


def test_contrast_of_known_pairs() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@THEMES
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("text", TEXTS)
def test_all_text_is_readable(wanted: Theme, text: str, ground: str) -> None:
    assert contrast(getattr(wanted, text), getattr(wanted, ground)) >= 4.5


@THEMES
def test_filled_buttons_badges_and_lines_are_visible(wanted: Theme) -> None:
    assert contrast(wanted.on_accent, wanted.accent_strong) >= 4.5
    assert contrast(wanted.link, wanted.accent_soft) >= 4.5
    for mark in ("accent", "good_mark", "warn_mark", "bad_mark"):
        assert contrast(getattr(wanted, mark), wanted.background) >= 3.0, mark


@THEMES
def test_every_colour_is_a_colour(wanted: Theme) -> None:
    for field in dataclasses.fields(wanted):
        if field.name not in ("name", "dark"):
            assert re.fullmatch("#[0-9a-f]{6}", getattr(wanted, field.name)), field.name


@THEMES
def test_the_style_sheet_has_no_gap(wanted: Theme) -> None:
    sheet = theme.style_sheet(wanted)
    assert "$" not in sheet
    for name in re.findall(r"url\(controls:([^)]+)\)", sheet):
        assert resource("icons", "controls", name).is_file(), name


@THEMES
def test_control_marks_have_the_themes_colours(wanted: Theme) -> None:
    allowed = {wanted.muted, wanted.text, wanted.on_accent}
    folder = resource("icons", "controls", wanted.name)
    for path in folder.glob("*.svg"):
        found = set(re.findall("#[0-9a-f]{6}", path.read_text(encoding="utf-8")))
        assert found, path
        assert found <= allowed, path


@THEMES
def test_applying_changes_palette_and_tells_listeners(qapp, qtbot, wanted) -> None:  # type: ignore[no-untyped-def]
    with qtbot.waitSignal(theme.notifier.theme_changed) as signal:
        apply_theme(qapp, wanted)
    assert signal.args == [wanted]
    assert current_theme() is wanted
    palette = qapp.palette()
    assert palette.color(QPalette.ColorRole.Window).name() == wanted.background
    assert palette.color(QPalette.ColorRole.Text).name() == wanted.text


@THEMES
def test_widgets_wear_the_theme(qapp, qtbot, wanted) -> None:  # type: ignore[no-untyped-def]
    button = QPushButton("Export")
    button.setProperty("role", "primary")
    qtbot.addWidget(button)
    button.show()
    apply_theme(qapp, wanted)
    qapp.processEvents()
    seen = colors(button.grab().toImage())
    assert max(seen, key=seen.__getitem__) == wanted.accent_strong


@THEMES
def test_drop_down_arrows_and_check_marks_are_drawn(qapp, qtbot, wanted) -> None:  # type: ignore[no-untyped-def]
    apply_theme(qapp, wanted)
    box, check = QComboBox(), QCheckBox()
    for widget in (box, check):
        qtbot.addWidget(widget)
        widget.show()
    box.resize(100, 28)
    check.setChecked(True)
    qapp.processEvents()
    image = box.grab().toImage()
    arrow = image.copy(image.width() - 22, 6, 18, image.height() - 12)
    assert min(contrast(wanted.muted, name) for name in colors(arrow)) < 1.2
    mark = colors(check.grab().toImage().copy(2, 2, 14, check.height() - 4))
    assert min(contrast(wanted.on_accent, name) for name in mark) < 1.2
    assert wanted.accent_strong in mark


def test_keyboard_focus_shows(qapp, qtbot) -> None:  # type: ignore[no-untyped-def]
    button = QPushButton("Open")
    qtbot.addWidget(button)
    button.show()
    button.clearFocus()
    before = colors(button.grab().toImage())
    qtbot.waitExposed(button)
    button.setFocus()
    qapp.processEvents()
    assert DARK.accent not in before
    assert colors(button.grab().toImage())[DARK.accent] > 40


def test_the_bundled_font_has_its_weights(qapp) -> None:  # type: ignore[no-untyped-def]
    plain, bold = theme.ui_font(), theme.ui_font(weight=QFont.Weight.DemiBold)
    assert QFontInfo(plain).family() == "Inter"
    text = "features.2.project"
    assert QFontMetrics(bold).horizontalAdvance(text) > QFontMetrics(plain).horizontalAdvance(text)
    assert resource("fonts", "inter", "LICENSE.txt").is_file()


def test_labels_take_their_role(qapp, qtbot) -> None:  # type: ignore[no-untyped-def]
    label = QLabel("█████")
    label.setProperty("role", "bad")
    qtbot.addWidget(label)
    label.show()
    assert DARK.bad in colors(label.grab().toImage())


def test_ramp_is_viridis() -> None:
    assert ramp(0.0) == QColor("#440154")
    assert ramp(1.0) == QColor("#fde725")
    assert ramp(0.5).name() == "#21908d"
    assert ramp(-3) == ramp(0)
    assert ramp(7) == ramp(1)
    assert ramp(float("nan")) == ramp(0)
    lightness = [ramp(t / 20).lightnessF() for t in range(21)]
    luminance = [contrast(ramp(t / 20), "#000000") for t in range(21)]
    assert luminance == sorted(luminance)
    assert lightness[0] < lightness[-1]


NEEDED = [
    "open",
    "data",
    "play",
    "calibrate",
    "evaluate",
    "export",
    "undo",
    "redo",
    "search",
    "fit",
    "zoom-in",
    "zoom-out",
    "cancel",
    "theme",
    "sun",
    "moon",
    "graph",
    "table",
    "info",
    "warning",
    "error",
    "check",
    "folder",
    "settings",
    "chevron-down",
    "chevron-right",
    "netron",
]


def ink(icon: QIcon, mode: QIcon.Mode = QIcon.Mode.Normal) -> QColor:
    """The most opaque colour of the icon at 32 pixels."""
    image = icon.pixmap(QSize(32, 32), mode).toImage()
    assert image.width() == 32
    pixels = [
        image.pixelColor(x, y)
        for y, x in itertools.product(range(image.height()), range(image.width()))
    ]
    return max(pixels, key=QColor.alpha)


@pytest.mark.parametrize("name", NEEDED)
def test_icons_follow_the_theme(qapp, name) -> None:  # type: ignore[no-untyped-def]
    icon = icons.icon(name)
    assert ink(icon).name() == DARK.text
    assert ink(icon, QIcon.Mode.Disabled).name() == DARK.disabled
    apply_theme(qapp, LIGHT)
    assert ink(icon).name() == LIGHT.text


def test_an_icon_in_a_button_is_repainted(qapp, qtbot) -> None:  # type: ignore[no-untyped-def]
    button = QToolButton()
    button.setIcon(icons.icon("play", "good"))
    qtbot.addWidget(button)
    button.show()
    assert min(contrast(DARK.good, c) for c in colors(button.grab().toImage())) < 1.1
    apply_theme(qapp, LIGHT)
    qapp.processEvents()
    assert min(contrast(LIGHT.good, c) for c in colors(button.grab().toImage())) < 1.1


def test_unknown_icons_are_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        icons.icon("no-such-icon")


def test_icons_survive_the_garbage_collector(qapp) -> None:  # type: ignore[no-untyped-def]
    copies = [QIcon(icons.icon("open")) for _ in range(500)]
    gc.collect()
    assert all(not copy.pixmap(16, 16).isNull() for copy in copies)


def test_the_app_icon_shows_a_line_on_a_ground(qapp) -> None:  # type: ignore[no-untyped-def]
    icon = icons.app_icon()
    assert {16, 48, 256} <= {size.width() for size in icon.availableSizes()}
    image = icon.pixmap(64, 64).toImage()
    assert image.pixelColor(0, 0).alpha() == 0
    assert contrast(image.pixelColor(52, 17), image.pixelColor(52, 50)) > 4


def test_painting_loses_no_reference_to_none(qapp) -> None:  # type: ignore[no-untyped-def]
    icon = icons.icon("open")
    before = sys.getrefcount(None)
    for size in range(16, 116):
        icon.pixmap(size, size)
    assert sys.getrefcount(None) > before - 50
