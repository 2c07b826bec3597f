"""lightly's BYOLTransform, as its library and its CIFAR-10 benchmark set it."""

from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform


def byol_transform(size: int, blur: bool = True) -> BYOLTransform:
    """Return the transform of a PIL image to two views; its CIFAR-10 benchmark leaves the blur out."""
    settings = {"input_size": size} | ({} if blur else {"gaussian_blur": 0.0})
    return BYOLTransform(BYOLView1Transform(**settings), BYOLView2Transform(**settings))
