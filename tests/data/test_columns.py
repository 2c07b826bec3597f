"""Which columns are taken for images and labels."""

import pytest
from datasets import ClassLabel, Features, Image, Value

from byol.data.columns import find_columns
from byol.errors import UserError

WHOLE, NAMED = Value("int64"), ClassLabel(names=["x", "y"])
STRUCT = {"bytes": Value("binary"), "path": Value("string")}


@pytest.mark.parametrize(
    ("features", "found"),
    [
        ({"photo": Image(), "kind": NAMED}, ("photo", "kind", ["x", "y"])),
        ({"mask": Image(), "image": Image()}, ("image", None, None)),
        ({"mask": Image(), "img": Image(), "labels": WHOLE}, ("img", "labels", None)),
        (
            {"img": Image(), "fine_label": NAMED, "coarse_label": ClassLabel(names=["z"])},
            ("img", "fine_label", ["x", "y"]),
        ),
        ({"img": Image(), "a": NAMED, "b": NAMED}, ("img", None, None)),
        ({"picture": STRUCT, "id": WHOLE}, ("picture", None, None)),
        ({"thumbnail": STRUCT, "photo": Image()}, ("photo", None, None)),
        ({"image": Image(), "label": Value("string")}, ("image", None, None)),
        ({"image": Image(), "label": WHOLE, "kind": NAMED}, ("image", "kind", ["x", "y"])),
    ],
)
def test_column_detection(features, found):
    assert find_columns("x", Features(features)) == found


def test_unclear_columns_are_refused():
    with pytest.raises(UserError, match=r"hf:x has several image columns \(left, right\): call the one"):
        find_columns("x", Features({"left": Image(), "right": Image()}))
    with pytest.raises(UserError, match=r"hf:x has no image column; .* not: text \(string\), n \(int64\)"):
        find_columns("x", Features({"text": Value("string"), "n": WHOLE}))
