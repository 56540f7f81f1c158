"""The top of the report: what was exported, and the verdict in numbers."""

from __future__ import annotations

from collections.abc import Iterator

from studio.exporting.report.content import ReportContent
from studio.exporting.report.markup import Markup, join, tag
from studio.exporting.report.text import integer, plural, points
from studio.readable import decibels, percent, share, size

RANDOM = "Random data: these figures say nothing about real accuracy."


def head(content: ReportContent) -> Markup:
    """Title, banner, verdict and the figures a reader looks for first."""
    created = f"{content.created.day} {content.created:%B %Y, %H:%M}"
    line = f"for {content.plan.target} · {created} · Quantization Studio {content.version}"
    return tag(
        "header",
        tag("p", "Quantization report", class_="kicker"),
        tag("h1", content.graph.source.name),
        tag("p", line, class_="byline"),
        _banner(content),
        tag("p", verdict(content), class_=f"verdict {_mood(content)}"),
        tag("div", *_cards(content), class_="cards"),
    )


def verdict(content: ReportContent) -> str:
    """One sentence: accuracy, size, verification."""
    parts = (_accuracy(content), _size(content), _verification(content))
    return "; ".join(filter(None, parts)) + "."


def random_badge(synthetic: bool) -> Markup:
    """A red line for every part whose figures come from random data."""
    return tag("p", RANDOM, class_="random") if synthetic else Markup("")


def _mood(content: ReportContent) -> str:
    if content.verification is not None and not content.verification.passed:
        return "bad"
    unknown = content.verification is None or content.evaluation is None
    return "warn" if unknown or content.any_synthetic else "good"


def _banner(content: ReportContent) -> Markup:
    if not content.any_synthetic:
        return Markup("")
    used = []
    if content.synthetic:
        used.append("calibrated")
    if content.evaluation is not None and content.evaluation.synthetic:
        used.append("evaluated")
    if content.sensitivity is not None and content.sensitivity.synthetic:
        used.append("analysed")
    text = f"This model was {' and '.join(used)} on random data. "
    advice = (
        "Ranges and accuracy are not those of real use: "
        "repeat this with real samples before deploying."
    )
    return tag("p", tag("strong", text), advice, class_="banner", role="alert")


def _accuracy(content: ReportContent) -> str:
    evaluation = content.evaluation
    if evaluation is None:
        return "Accuracy was not evaluated"
    samples = f"{integer(evaluation.samples)} {'random ' if evaluation.synthetic else ''}samples"
    before, after = evaluation.float_accuracy, evaluation.accuracy
    if before is not None and after is not None:
        return (
            f"Top-1 {percent(after.top1, 2)} simulated against {percent(before.top1, 2)} float "
            f"({points(after.top1 - before.top1)} points, {samples})"
        )
    return f"Output SQNR {decibels(evaluation.output.sqnr_db)} against float ({samples})"


def _size(content: ReportContent) -> str:
    sizes = content.sizes
    if sizes is None:
        return ""
    words = f"{size(sizes.before)} to {size(sizes.after)}"
    what = "constants " if sizes.planned else ""
    return f"{what}{sizes.compression:.1f} times smaller ({words})"


def _verification(content: ReportContent) -> str:
    verification = content.verification
    if verification is None:
        return "not exported yet" if content.float_bytes is None else "not verified in onnxruntime"
    if verification.passed:
        return "verification passed: every layer in onnxruntime within one step of the simulation"
    return (
        "verification failed: layers in onnxruntime differ from the simulation by up to "
        f"{integer(verification.largest)} steps"
    )


def _cards(content: ReportContent) -> Iterator[Markup]:
    evaluation = content.evaluation
    if evaluation is not None:
        before, after = evaluation.float_accuracy, evaluation.accuracy
        if before is not None and after is not None:
            change = points(after.top1 - before.top1)
            detail = f"float {percent(before.top1, 2)}, {change}"
            yield _card("Top-1 simulated", percent(after.top1, 2), detail)
        if evaluation.agreement is not None:
            yield _card("Agreement", percent(evaluation.agreement, 2), "same top-1 class as float")
        cosine = f"cosine {evaluation.output.cosine:.5f}"
        yield _card("Output SQNR", decibels(evaluation.output.sqnr_db), cosine)
    sizes = content.sizes
    if sizes is not None:
        ratio = f"float {size(sizes.before)}, {sizes.compression:.1f} times smaller"
        title = "Constants (planned)" if sizes.planned else "Size"
        yield _card(title, size(sizes.after), ratio)
    total = len(content.layers)
    yield _card("Layers quantized", integer(content.quantized_layers), f"of {integer(total)}")
    verification = content.verification
    if verification is None:
        yield _card("Verification", "not run", "not compared with onnxruntime", "warn")
    else:
        result, mood = ("passed", "good") if verification.passed else ("failed", "bad")
        steps = plural(verification.largest, "step")
        detail = f"at most {steps} apart, identical ≥ {share(verification.identical)}"
        yield _card("Verification", result, detail, mood)


def _card(title: str, value: str, detail: str, mood: str = "") -> Markup:
    parts = [tag("span", title), tag("b", value), tag("small", detail)]
    return tag("div", join(parts), class_=f"card {mood}".strip())
