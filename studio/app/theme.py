"""Two palettes, one style sheet.

Colours are `#rrggbb` strings: style sheets, `QColor` and pyqtgraph all take them as they are.
Widgets that paint themselves read `current_theme()` and listen to `notifier.theme_changed`.

A widget asks for a variant with the dynamic property `role`, set before it is shown:
`QPushButton` / `QToolButton`: "primary" (the one main action), "chip" (small, round);
`QLabel`: "heading", "caption" (small section title), "muted", "good", "warn", "bad", "link".
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from string import Template

from PySide6.QtCore import QDir, QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QApplication, QWidget

from studio.resource_files import resource

FONT_FAMILIES = ("Inter", "Segoe UI", "SF Pro Text", "Noto Sans", "DejaVu Sans")
FONT_PIXELS = 13
SMALL_PIXELS = 12


@dataclass(frozen=True)
class Theme:
    """Named colours, `#rrggbb`.

    Text colours (`text`, `muted`, `link`, `good`, `warn`, `bad`) reach a contrast of 4.5:1 on
    `background`, `surface`, `raised` and `selection`; `on_accent` does so on `accent_strong`.
    """

    name: str
    dark: bool
    background: str  # window, canvas, tables
    surface: str  # cards, graph nodes, input fields
    raised: str  # hovered, tracks, not yet known
    border: str
    border_strong: str  # hovered outlines, scroll bars
    edge: str  # lines of the graph
    text: str
    muted: str
    disabled: str
    accent: str  # lines, bars, outlines: not text
    accent_strong: str  # filled buttons
    accent_soft: str  # fill of badges
    on_accent: str
    link: str  # text in the accent's hue
    good: str
    warn: str
    bad: str
    good_mark: str  # bars and dots: not text
    warn_mark: str
    bad_mark: str
    selection: str
    grid: str
    shadow: str

    def color(self, name: str) -> QColor:
        """The colour called `name` as a QColor."""
        return QColor(getattr(self, name))


DARK = Theme(
    name="dark",
    dark=True,
    background="#1b1f26",
    surface="#20252d",
    raised="#262b34",
    border="#2c333d",
    border_strong="#3d4653",
    edge="#566170",
    text="#e6e9ee",
    muted="#9aa5b3",
    disabled="#5d6672",
    accent="#4c9be8",
    accent_strong="#2f6fb3",
    accent_soft="#223a55",
    on_accent="#ffffff",
    link="#6fb1f2",
    good="#46b98a",
    warn="#e0a23b",
    bad="#f08a7b",
    good_mark="#46b98a",
    warn_mark="#e0a23b",
    bad_mark="#d9604f",
    selection="#223a55",
    grid="#2a303a",
    shadow="#12151a",
)

LIGHT = Theme(
    name="light",
    dark=False,
    background="#ffffff",
    surface="#f7f8fa",
    raised="#eef0f3",
    border="#dde1e7",
    border_strong="#c3cad4",
    edge="#a9b2be",
    text="#1d232b",
    muted="#5a6473",
    disabled="#9aa3af",
    accent="#1f6fc4",
    accent_strong="#1f6fc4",
    accent_soft="#dcebfb",
    on_accent="#ffffff",
    link="#1a60ab",
    good="#17734e",
    warn="#8a5a08",
    bad="#b83327",
    good_mark="#1e8a5f",
    warn_mark="#b37410",
    bad_mark="#c0392b",
    selection="#dcebfb",
    grid="#eaecf0",
    shadow="#c9ced6",
)

THEMES = {theme.name: theme for theme in (DARK, LIGHT)}


class ThemeNotifier(QObject):
    """Says that another theme is in force; the argument is the new `Theme`."""

    theme_changed = Signal(object)


notifier = ThemeNotifier()
_current = DARK

# viridis at nine equal steps (matplotlib, CC0).
_VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip


def ramp(t: float) -> QColor:
    """Viridis, colour-blind safe: 0 is violet, 1 is yellow; `t` is clipped to [0, 1], nan is 0."""
    t = min(1.0, max(0.0, t)) if t == t else 0.0
    position = t * (len(_VIRIDIS) - 1)
    index = min(int(position), len(_VIRIDIS) - 2)
    part = position - index
    low, high = _VIRIDIS[index], _VIRIDIS[index + 1]
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return QColor(red, green, blue)


def current_theme() -> Theme:
    """The theme in force (dark until `apply_theme` was called)."""
    return _current


def apply_theme(app: QApplication, theme: Theme) -> None:
    """Dress the whole application: Fusion, palette, font, style sheet; then tell the listeners."""
    global _current
    _current = theme
    _load_fonts()
    QDir.setSearchPaths("controls", [str(resource("icons", "controls"))])
    app.setStyle("Fusion")
    app.setFont(ui_font())
    app.setPalette(palette(theme))
    app.setStyleSheet(style_sheet(theme))
    notifier.theme_changed.emit(theme)


def ui_font(pixels: int = FONT_PIXELS, weight: QFont.Weight = QFont.Weight.Normal) -> QFont:
    """The interface font: the bundled Inter, else what the system has."""
    font = QFont()
    font.setFamilies(list(FONT_FAMILIES))
    font.setPixelSize(pixels)
    font.setWeight(weight)
    return font


def palette(theme: Theme) -> QPalette:
    """A complete palette, so that nothing falls back to the desktop's colours."""
    role = QPalette.ColorRole
    colors = {
        role.Window: theme.background,
        role.WindowText: theme.text,
        role.Base: theme.background,
        role.AlternateBase: theme.surface,
        role.Text: theme.text,
        role.PlaceholderText: theme.muted,
        role.Button: theme.surface,
        role.ButtonText: theme.text,
        role.BrightText: theme.bad,
        role.Highlight: theme.selection,
        role.HighlightedText: theme.text,
        role.ToolTipBase: theme.raised,
        role.ToolTipText: theme.text,
        role.Link: theme.link,
        role.LinkVisited: theme.link,
        role.Light: theme.raised,
        role.Midlight: theme.border,
        role.Mid: theme.border_strong,
        role.Dark: theme.border_strong,
        role.Shadow: theme.shadow,
        role.Accent: theme.accent,
    }
    result = QPalette()
    for key, value in colors.items():
        result.setColor(key, QColor(value))
    for key in (role.WindowText, role.Text, role.ButtonText, role.HighlightedText):
        result.setColor(QPalette.ColorGroup.Disabled, key, QColor(theme.disabled))
    return result


def show_keyboard_focus(widget: QWidget, reason: Qt.FocusReason) -> None:
    """For the `focusInEvent` of a canvas: only the keyboard gives it a focus frame."""
    by_key = (
        Qt.FocusReason.TabFocusReason,
        Qt.FocusReason.BacktabFocusReason,
        Qt.FocusReason.ShortcutFocusReason,
    )
    back = (Qt.FocusReason.ActiveWindowFocusReason, Qt.FocusReason.PopupFocusReason)
    if reason in back and widget.property("keyboardFocus") is not None:
        return  # as it was before the window or the menu took the focus
    widget.setProperty("keyboardFocus", reason in by_key)
    widget.style().unpolish(widget)
    widget.style().polish(widget)


def contrast(first: str | QColor, second: str | QColor) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""
    low, high = sorted((_luminance(QColor(first)), _luminance(QColor(second))))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: QColor) -> float:
    linear = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
        for c in (color.redF(), color.greenF(), color.blueF())
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


_fonts_loaded = False


def _load_fonts() -> None:
    global _fonts_loaded
    if _fonts_loaded:
        return
    _fonts_loaded = True
    for path in sorted(resource("fonts").rglob("*.otf")):
        QFontDatabase.addApplicationFont(str(path))


def style_sheet(theme: Theme) -> str:
    """The style sheet of the whole application in the colours of `theme`."""
    values = {field.name: getattr(theme, field.name) for field in fields(theme)}
    template = resource("theme.qss").read_text(encoding="utf-8")
    return Template(template).substitute(values, small=f"{SMALL_PIXELS}px")
