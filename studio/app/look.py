"""Rules of the window's own style sheet, on top of the theme's."""

from __future__ import annotations

from studio.app.theme import Theme


def window_style(theme: Theme) -> str:
    """For widgets that only this window has."""
    return f"""
#topBar {{ border-bottom: 1px solid {theme.border}; }}
#statusBar {{ border-top: 1px solid {theme.border}; }}
#statusBar QLabel {{ font-size: 12px; }}
QFrame[role="line"] {{ background: {theme.border}; border: none; }}
QToolButton[role="flat"] {{ background: transparent; border-color: transparent; padding: 5px 7px; }}
QToolButton[role="flat"]::menu-indicator {{ image: none; width: 0; }}
QToolButton[role="flat"]:hover {{ background: {theme.raised}; }}
QToolButton[role="flat"]:focus {{ border-color: {theme.accent}; }}
QToolButton[role="reset"] {{
    background: transparent; border: 1px solid transparent; border-radius: 5px; padding: 3px;
}}
QToolButton[role="reset"]:hover {{ background: {theme.raised}; border-color: {theme.border}; }}
QToolButton[role="reset"]:focus {{ border-color: {theme.accent}; }}
QLabel[role="section"] {{ font-weight: 600; padding-top: 6px; }}
QLabel[role="figure"] {{ font-size: 26px; font-weight: 600; color: {theme.good}; }}
QLabel[role="total"] {{ font-size: 17px; font-weight: 600; }}
QLabel[role="badge"] {{
    color: {theme.warn}; border: 1px solid {theme.warn_mark}; border-radius: 6px;
    padding: 3px 8px; font-size: 12px; font-weight: 600;
}}
QLineEdit[role="chip"] {{ border-radius: 11px; padding: 2px 9px; font-size: 12px; }}
QTableView[role="small"]::item, QTableView[role="small"]::item:focus {{ padding: 1px 4px; }}
QTableView[role="small"] QHeaderView::section {{ padding: 3px 4px; }}
#offer {{ background: {theme.accent_soft}; border-radius: 6px; }}
QComboBox[role="changed"] {{ font-weight: 700; color: {theme.link}; }}
QComboBox[role="changed"]:disabled {{ color: {theme.disabled}; }}
"""
