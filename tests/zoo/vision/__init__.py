"""Classification, segmentation, detection, poses, restoration, generation and faces."""

from __future__ import annotations

from ..registry import Entry, Input, image

ONE_SIZE = "made for one image size: "


def _entry(
    name: str, family: str, module: str, factory: str, own: Input, other: int = 0, note: str = ""
) -> Entry:
    """One image in; `other`: the side of another image, at a batch of 2."""
    shapes = ((2, own.shape[1], other, other + 32),) if other else ()
    return Entry(name, family, f"vision/{module}.py", factory, (own,), shapes, note=note)


CLASSIFICATION = (
    _entry("mobilenet-v1", "classification", "mobilenet", "v1", image(64), 96),
    _entry("mobilenet-v2", "classification", "mobilenet", "v2", image(64), 96),
    _entry("mobilenet-v3", "classification", "mobilenet", "v3", image(64), 96),
    _entry(
        "efficientnet-b0",
        "classification",
        "efficientnet",
        "b0",
        image(64),
        note="opened at one image size: TensorFlow's padding is computed from it",
    ),
    _entry("efficientnet-lite0", "classification", "efficientnet", "lite0", image(64), 96),
    _entry("resnet-basic", "classification", "resnet", "basic", image(64), 96),
    _entry("resnet-bottleneck", "classification", "resnet", "bottleneck", image(64), 96),
    _entry("resnext", "classification", "resnet", "resnext", image(64), 96),
    _entry("wide-resnet", "classification", "resnet", "wide", image(64), 96),
    _entry("se-resnet", "classification", "resnet", "se_resnet", image(64), 96),
    _entry("densenet", "classification", "densenet", "densenet", image(64), 96),
    _entry("inception-v3", "classification", "inception", "v3", image(96), 128),
    _entry("googlenet", "classification", "inception", "googlenet", image(64), 96),
    _entry(
        "vgg-bn",
        "classification",
        "vgg",
        "vgg_bn",
        image(64),
        note=ONE_SIZE + "its classifier reads all positions",
    ),
    _entry(
        "alexnet",
        "classification",
        "vgg",
        "alexnet",
        image(127),
        note=ONE_SIZE + "ONNX has no adaptive pooling to 3x3 for a size not known",
    ),
    _entry("squeezenet", "classification", "vgg", "squeezenet", image(64), 96),
    _entry("shufflenet-v2", "classification", "shufflenet", "v2", image(64), 96),
    _entry("mnasnet-a1", "classification", "mnasnet", "a1", image(64), 96),
    _entry("ghostnet", "classification", "ghostnet", "ghostnet", image(64), 96),
    _entry("regnet-x", "classification", "regnet", "x", image(64), 96),
    _entry("regnet-y", "classification", "regnet", "y", image(64), 96),
    _entry("repvgg", "classification", "regnet", "repvgg", image(64), 96),
    _entry("convnext", "classification", "convnext", "convnext", image(64), 96),
    _entry(
        "vit",
        "vision transformer",
        "vit",
        "vit",
        image(64),
        note=ONE_SIZE + "a position embedding for each patch",
    ),
    _entry(
        "deit",
        "vision transformer",
        "vit",
        "deit",
        image(64),
        note=ONE_SIZE + "a position embedding for each patch",
    ),
    _entry(
        "swin",
        "vision transformer",
        "swin",
        "swin",
        image(64),
        note=ONE_SIZE + "the masks of shifted windows",
    ),
    _entry("mobilevit", "vision transformer", "mobilevit", "mobilevit", image(64), 96),
    _entry(
        "mlp-mixer",
        "vision transformer",
        "mixer",
        "mixer",
        image(64),
        note=ONE_SIZE + "it mixes a fixed number of patches",
    ),
    _entry("poolformer", "vision transformer", "mixer", "poolformer", image(64), 96),
    _entry(
        "coatnet",
        "vision transformer",
        "mixer",
        "coatnet",
        image(64),
        note=ONE_SIZE + "a bias for each relative position",
    ),
)

SEGMENTATION = (
    _entry("fcn-8s", "segmentation", "segmentation", "fcn", image(64), 96),
    _entry(
        "pspnet",
        "segmentation",
        "segmentation",
        "pspnet",
        image(96),
        note=ONE_SIZE + "ONNX has no adaptive pooling to 6x6 for a size not known",
    ),
    _entry("deeplab-v3+", "segmentation", "segmentation", "deeplab", image(64), 96),
    _entry("bisenet", "segmentation", "segmentation", "bisenet", image(64), 96),
    _entry("u-net", "segmentation", "unet", "unet", image(64), 96),
    _entry(
        "segnet",
        "segmentation",
        "unet",
        "segnet",
        image(64),
        96,
        note="its SQNR is low since rounding moves some of the maxima whose places it remembers",
    ),
    _entry("hrnet", "segmentation", "hrnet", "segmentation", image(64), 96),
    _entry("segformer", "segmentation", "segformer", "segformer", image(64), 96),
)

DETECTION = (
    _entry(
        "ssd-lite",
        "detection",
        "ssd",
        "ssdlite",
        image(96),
        note=ONE_SIZE + "its anchors are constants",
    ),
    _entry(
        "retinaface",
        "detection",
        "ssd",
        "retinaface",
        image(96),
        note=ONE_SIZE + "its anchors are constants",
    ),
    _entry("yolo-v3", "detection", "yolo", "v3", image(96), 64),
    _entry("yolo-v5", "detection", "yolo", "v5", image(96), 64),
    _entry("yolo-v8", "detection", "yolo", "v8", image(96), 64),
    _entry("retinanet", "detection", "detection", "retinanet", image(96), 64),
    _entry("centernet", "detection", "detection", "centernet", image(96), 64),
    _entry("efficientdet", "detection", "detection", "efficientdet", image(96), 64),
    _entry("mtcnn-pnet", "detection", "face", "pnet", image(48), 65),
    _entry("mtcnn-rnet", "detection", "face", "rnet", image(24), note=ONE_SIZE + "a crop of 24x24"),
    _entry("mtcnn-onet", "detection", "face", "onet", image(48), note=ONE_SIZE + "a crop of 48x48"),
)

POSES = (
    _entry("openpose", "pose", "pose", "openpose", image(64), 96),
    _entry("hrnet-pose", "pose", "hrnet", "pose", image(64), 96),
)

RESTORATION = (
    _entry("srgan", "restoration", "restoration", "srgan", image(24), 32),
    _entry("espcn", "restoration", "restoration", "espcn", image(32, channels=1), 48),
    _entry("dncnn", "restoration", "restoration", "dncnn", image(48, channels=1), 64),
)

GENERATION = (
    Entry(
        "dcgan",
        "generation",
        "vision/generation.py",
        "dcgan",
        (Input((1, 64, 1, 1), "normal"),),
        note=ONE_SIZE + "it makes images of 32x32",
    ),
    _entry("cyclegan", "generation", "generation", "cyclegan", image(64), 96),
    _entry("style-transfer", "generation", "generation", "style_transfer", image(48), 64),
    _entry(
        "vae", "generation", "generation", "vae", image(32), note=ONE_SIZE + "the code is dense"
    ),
)

ENTRIES = (
    *CLASSIFICATION,
    *SEGMENTATION,
    *DETECTION,
    *POSES,
    *RESTORATION,
    *GENERATION,
)
