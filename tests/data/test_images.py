from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.data import ImageFolder, Preprocess, evenly_spaced, load_image
from studio.data import images as images_module
from studio.errors import CancelledError, DataError
from studio.jobs import CancelToken

PIXELS = Preprocess(size=(4, 4), scale=1)


def write(path: Path, value: int = 0, size: tuple[int, int] = (6, 5)) -> Path:
    """A picture of one grey value, which tells the pictures apart in the batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def read(data: ImageFolder, batch_size: int = 4, **options) -> tuple[list[int], list[int] | None]:
    """Grey values and labels of all samples."""
    values, labels = [], []
    for batch in data.batches(batch_size, **options):
        samples = batch.inputs["x"]
        assert samples.dtype == np.float32
        assert samples.shape == (len(batch), 3, 4, 4)
        values += [int(value) for value in samples[:, 0, 0, 0]]
        labels += [] if batch.labels is None else batch.labels.tolist()
    return values, labels or None


def open_folder(path: Path) -> ImageFolder:
    return ImageFolder(path, PIXELS, "x")


def test_subfolders_are_classes_in_sorted_order(tmp_path) -> None:
    for value, name in enumerate(["zebra/b.png", "ant/a.png", "zebra/a.jpeg", "ant/deep/c.png"]):
        write(tmp_path / name, value * 10)
    data = open_folder(tmp_path)
    assert data.has_labels
    assert data.classes == {0: "ant", 1: "zebra"}
    assert read(data) == ([10, 30, 20, 0], [0, 0, 1, 1])
    assert data.warnings == ()


def test_numbers_that_begin_every_name_are_the_class_indices(tmp_path) -> None:
    for value, name in enumerate(["0682_n03837869_obelisk", "7-seven", "12"]):
        write(tmp_path / name / "a.png", value * 10)
    data = open_folder(tmp_path)
    assert read(data) == ([0, 20, 10], [682, 12, 7])
    assert data.classes[682] == "0682_n03837869_obelisk"


def test_numbers_count_only_if_all_names_have_one(tmp_path) -> None:
    for name in ["5_five", "six", "7up"]:
        write(tmp_path / name / "a.png")
    assert open_folder(tmp_path).classes == {0: "5_five", 1: "7up", 2: "six"}


def test_one_class_number_twice_is_refused(tmp_path) -> None:
    write(tmp_path / "1_a" / "a.png")
    write(tmp_path / "01_b" / "a.png")
    with pytest.raises(DataError, match="'01_b' and '1_a' both stand for class 1"):
        open_folder(tmp_path)


def test_a_flat_folder_has_no_labels(tmp_path) -> None:
    write(tmp_path / "b.png", 20)
    write(tmp_path / "a.PNG", 10)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    data = open_folder(tmp_path)
    assert not data.has_labels
    assert read(data) == ([10, 20], None)


def test_pictures_beside_class_folders_are_mentioned(tmp_path) -> None:
    write(tmp_path / "cat" / "a.png")
    write(tmp_path / "stray.png")
    data = open_folder(tmp_path)
    assert len(data) == 1
    assert data.warnings == ("1 pictures beside the class folders are not used.",)


def test_a_link_to_a_folder_above_ends(tmp_path) -> None:
    write(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat", target_is_directory=True)
    assert len(open_folder(tmp_path)) == 1


@pytest.mark.parametrize("empty", [True, False])
def test_a_folder_without_pictures_is_refused(tmp_path, empty: bool) -> None:
    if not empty:
        (tmp_path / "model.onnx").write_bytes(b"x")
        (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("path,label\na.png,7\nsub/b.png,3\n", [7, 3]),
        ("a.png,7\nsub/b.png,3", [7, 3]),
        ("\ufefffilename;class\na.png;7\n\nsub/b.png;3\n", [7, 3]),
        ("a.png\tzebra\nsub/b.png\tant\n", [1, 0]),
    ],
)
def test_labels_csv(tmp_path, text: str, labels: list[int]) -> None:
    write(tmp_path / "a.png", 10)
    write(tmp_path / "sub" / "b.png", 20)
    write(tmp_path / "sub" / "unlisted.png", 30)
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    assert read(open_folder(tmp_path)) == ([10, 20], labels)
    assert read(open_folder(tmp_path / "labels.csv")) == ([10, 20], labels)


def test_names_in_labels_csv_are_kept(tmp_path) -> None:
    write(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("a.png,zebra\na.png,ant\n")
    assert open_folder(tmp_path).classes == {0: "ant", 1: "zebra"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na.png\n", "line 2 is not a path and a label"),
        (b"path,label\na.png,\n", "line 2 is not a path and a label"),
        (b"path,label\n", "lists no picture"),
        (b"", "lists no picture"),
        (b"a.png," + b"7" * 200_000, "is not valid CSV"),
        (b"a.png,\xff\xfe\n", "cannot be read"),
    ],
)
def test_a_wrong_labels_csv_is_refused(tmp_path, content: bytes, message: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)


def test_broken_pictures_are_skipped_and_named(tmp_path) -> None:
    for number in range(7):
        write(tmp_path / f"{number}.png", number)
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "3.png").write_bytes(b"no picture at all")
    (tmp_path / "5.png").write_bytes(b"")
    data = open_folder(tmp_path)
    sizes = [(len(batch), batch.indices.tolist()) for batch in data.batches(3)]
    assert sizes == [(3, [0, 2, 4]), (1, [6])]
    assert [Path(text.split(": ")[0]).name for text in data.warnings] == ["1.png", "3.png", "5.png"]
    assert "is not a picture of a known format" in data.warnings[1]
    assert read(data) == ([0, 2, 4, 6], None)
    assert len(data.warnings) == 3


def test_a_listed_file_that_does_not_exist_is_named(tmp_path) -> None:
    write(tmp_path / "a.png", 10)
    (tmp_path / "labels.csv").write_text("gone.png,0\na.png,1\n")
    data = open_folder(tmp_path)
    assert read(data) == ([10], [1])
    assert "gone.png: does not exist" in data.warnings[0]


def test_only_broken_pictures_are_refused(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"None of the 1 pictures .*a\.png"):
        list(open_folder(tmp_path).batches(2))


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch) -> None:
    write(tmp_path / "bomb.png", 1, size=(40, 30))
    write(tmp_path / "fine.png", 2)
    monkeypatch.setattr(images_module, "MAX_PIXELS", 1000)
    data = open_folder(tmp_path)
    assert read(data) == ([2], None)
    assert "1,200 pixels are more than the 1,000 allowed" in data.warnings[0]


def test_other_formats_behind_a_known_suffix_are_not_decoded(tmp_path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="known format"):
        load_image(tmp_path / "a.png")


def test_exif_orientation_is_applied(tmp_path) -> None:
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    upright = load_image(tmp_path / "a.png")
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


def test_pictures_of_different_sizes_need_a_size(tmp_path) -> None:
    write(tmp_path / "a.png", size=(4, 4))
    write(tmp_path / "b.png", size=(5, 4))
    data = ImageFolder(tmp_path, Preprocess(), "x")
    with pytest.raises(DataError, match="different shapes") as caught:
        list(data.batches(2))
    assert "size or crop" in caught.value.hint


def test_order_limit_and_seed(tmp_path) -> None:
    for number in range(10):
        write(tmp_path / f"{number}.png", number)
    data = open_folder(tmp_path)
    assert read(data, limit=3)[0] == [0, 1, 2]
    shuffled = read(data, seed=5)[0]
    assert sorted(shuffled) == list(range(10)) != shuffled
    assert read(data, seed=5, limit=4, batch_size=3)[0] == shuffled[:4]
    assert read(data, seed=6)[0] != shuffled
    assert read(data, limit=0) == ([], None)


def test_subset_is_spread_over_the_classes(tmp_path) -> None:
    for value in range(12):
        write(tmp_path / f"class{value // 3}" / f"{value:02}.png", value)
    data = open_folder(tmp_path)
    assert read(data.subset(4)) == ([0, 3, 6, 9], [0, 1, 2, 3])
    assert len(data.subset(100)) == 12
    assert len(data) == 12


@pytest.mark.parametrize(("total", "count"), [(10, 3), (500, 64), (3, 3), (3, 9), (0, 4), (5, 0)])
def test_evenly_spaced(total: int, count: int) -> None:
    positions = evenly_spaced(total, count)
    assert len(positions) == min(total, count)
    if len(positions) > 1:
        assert positions[0] == 0
        gaps = np.diff([*positions, total])
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


def test_cancel_stops_and_leaves_no_thread(tmp_path) -> None:
    for number in range(10):
        write(tmp_path / f"{number}.png", number)
    cancel = CancelToken()
    batches = open_folder(tmp_path).batches(2, cancel=cancel)
    next(batches)
    cancel.cancel()
    with pytest.raises(CancelledError):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_real_photographs(sample_data) -> None:
    data = ImageFolder(sample_data / "imagenet-sample", Preprocess.guess((1, 3, 224, 224)), "x")
    (batch,) = data.subset(8).batches(8)
    assert batch.inputs["x"].shape == (8, 3, 224, 224)
    assert len(set(batch.labels.tolist())) == 8
    assert data.warnings == ()
