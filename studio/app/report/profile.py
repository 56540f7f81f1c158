"""A browser that shows the report's file and can load nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from studio.app.netron_pane import sandbox_possible

if TYPE_CHECKING:
    from PySide6.QtWebEngineCore import QWebEngineProfile, QWebEngineUrlRequestInterceptor


def private_profile() -> tuple[QWebEngineProfile, QWebEngineUrlRequestInterceptor]:
    """A profile off the record whose pages load the files they are given and nothing else; the
    interceptor has to live as long. Raises ImportError without WebEngine."""
    if not sandbox_possible():
        os.environ["QTWEBENGINE_DISABLE_SANDBOX"] = "1"
    from PySide6.QtWebEngineCore import (
        QWebEngineProfile,
        QWebEngineUrlRequestInfo,
        QWebEngineUrlRequestInterceptor,
    )

    main_frame = QWebEngineUrlRequestInfo.ResourceType.ResourceTypeMainFrame

    class OnlyTheReport(QWebEngineUrlRequestInterceptor):
        def interceptRequest(self, info: QWebEngineUrlRequestInfo) -> None:
            allowed = info.requestUrl().scheme() == "file" and info.resourceType() == main_frame
            info.block(not allowed)

    profile, interceptor = QWebEngineProfile(), OnlyTheReport()
    profile.setUrlRequestInterceptor(interceptor)
    profile.downloadRequested.connect(lambda request: request.cancel())
    return profile, interceptor
