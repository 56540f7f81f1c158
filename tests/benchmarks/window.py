"""How fluent the window stays while a model calibrates, and how soon it appears.

    python tests/benchmarks/window.py fluency MODEL.onnx DATA [--preprocess FILE]
    python tests/benchmarks/window.py startup [--rounds 7]

`fluency`: gaps between the ticks of a 10 ms timer in the GUI thread, idle and while calibrating.
`startup`: seconds from process start to the first drawn window, relative to a bare PySide6 window.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

BARE = """
import sys
from PySide6.QtWidgets import QApplication, QLabel, QMainWindow
app = QApplication(sys.argv[:1])
window = QMainWindow()
window.setCentralWidget(QLabel("hello"))
"""

STUDIO = """
import sys
from PySide6.QtCore import QCoreApplication, QSettings
from studio.app import main
"""

WATCH = """
import os
from PySide6.QtCore import QEvent, QObject
class Watch(QObject):
    def eventFilter(self, target, event):
        if event.type() == QEvent.Type.Paint:
            os._exit(0)
        return False
watch = Watch()
"""

SHOW_BARE = """
app.installEventFilter(watch)
window.show()
app.exec()
"""

SHOW_STUDIO = """
make = main.make_application
def make_watched(arguments):
    app = make(arguments)
    app.installEventFilter(watch)
    return app
main.make_application = make_watched
main.run(None, QSettings(sys.argv[1], QSettings.Format.IniFormat))
"""


def startup(rounds: int) -> None:
    times: dict[str, list[float]] = {"bare PySide6 window": [], "studio": []}
    programs = (BARE + WATCH + SHOW_BARE, STUDIO + WATCH + SHOW_STUDIO)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            for (_, values), code in zip(times.items(), programs, strict=True):
                start = time.perf_counter()
                words = [sys.executable, "-c", code, str(Path(folder) / "view.ini")]
                subprocess.run(words, check=True, capture_output=True)
                values.append(time.perf_counter() - start)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    reference = medians["bare PySide6 window"]
    for name, value in medians.items():
        print(f"{name:22} {1000 * value:6.0f} ms   ratio {value / reference:.2f}")


def fluency(model: Path, data: Path, preprocess: Path | None) -> None:
    from PySide6.QtCore import QSettings, Qt, QTimer

    from studio.app.main import make_application

    app = make_application(["studio"])
    from studio.app.settings import ViewSettings
    from studio.app.theme import DARK, apply_theme
    from studio.app.window import MainWindow
    from studio.data.preprocess import Preprocess
    from studio.project import steps
    from studio.project.document import DataSettings

    apply_theme(app, DARK)
    with tempfile.TemporaryDirectory() as folder:
        view = ViewSettings(QSettings(str(Path(folder) / "view.ini"), QSettings.Format.IniFormat))
        window = MainWindow(view)
        window.resize(1600, 1000)
        window.show()
        document = steps.open_document(model)
        settings = DataSettings(
            path=data, preprocess=Preprocess.load(preprocess) if preprocess else None
        )
        window.session.show(document.with_data(settings))
        ticks: list[float] = []
        timer = QTimer()
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.setInterval(10)
        timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
        timer.start()
        end = time.perf_counter() + 3
        while time.perf_counter() < end:
            app.processEvents()
            time.sleep(0.0005)
        report("idle", ticks)
        for name, step in (
            ("calibrating", window.session.calibrate),
            ("evaluating", window.session.evaluate),
        ):
            ticks.clear()
            step()
            while window.session.busy:
                app.processEvents()
                time.sleep(0.0005)
            report(name, ticks)
        window.session.wait(5)


def report(name: str, ticks: list[float]) -> None:
    gaps = sorted(1000 * (after - before) for before, after in itertools.pairwise(ticks))
    print(
        f"{name:12} {len(gaps)} gaps: median {gaps[len(gaps) // 2]:.1f} ms, "
        f"99th percentile {gaps[int(len(gaps) * 0.99)]:.1f} ms, longest {gaps[-1]:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    fluent = commands.add_parser("fluency")
    fluent.add_argument("model", type=Path)
    fluent.add_argument("data", type=Path)
    fluent.add_argument("--preprocess", type=Path)
    start = commands.add_parser("startup")
    start.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.command == "startup":
        startup(options.rounds)
    else:
        fluency(options.model, options.data, options.preprocess)


if __name__ == "__main__":
    main()
