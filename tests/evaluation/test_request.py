from typing import Any

import pytest

from byol.config import EvaluateConfig
from byol.errors import UserError
from byol.evaluation.request import Request, parsed_request
from byol.settings import settings_from


def request_of(protocol: str, labels: str | int, **more: Any) -> Request:
    values = {"target": "run", "protocol": protocol, "labels": labels, **more}
    return parsed_request(settings_from(EvaluateConfig, values))


def test_lists_are_split_and_doubles_dropped() -> None:
    request = request_of("knn, logistic,knn", "1,5,10%,all", draws=3)
    assert request.protocols == ("knn", "logistic")
    assert request.amounts == (1, 5, "10%", "all")
    assert request_of("knn", 5).amounts == (5,)


@pytest.mark.parametrize(
    ("protocol", "labels", "message"),
    [
        ("logistc", "all", r"unknown protocol 'logistc'. Did you mean 'logistic'\?"),
        ("", "all", "--protocol is empty"),
        ("knn", "some", "not 'some'"),
        ("knn", "0", "not '0'"),
        ("knn", "200%", "not '200%'"),
        ("knn", "", "--labels is empty"),
        ("linear", "5", "use --protocol logistic"),
    ],
)
def test_nonsense_is_refused(protocol: str, labels: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        request_of(protocol, labels)


def test_other_limits() -> None:
    with pytest.raises(UserError, match="draws"):
        request_of("knn", "5", draws=0)
    with pytest.raises(UserError, match="--augment"):
        request_of("knn", "all", augment=True)
    assert request_of("knn", "1%,all", report=True).amounts == ("1%", "all")
    with pytest.raises(UserError, match="--report shows what comes of all labels: add all to --labels"):
        request_of("knn", "1%,5", report=True)


def test_metric_and_transfer() -> None:
    assert request_of("knn", "all").metric == "top1"
    request = request_of("knn,logistic", "all", metric="mean_per_class", transfer=True)
    assert (request.metric, request.transfer) == ("mean_per_class", True)
    with pytest.raises(
        UserError, match=r"--metric cannot be 'mean_per_clas'.* Did you mean 'mean_per_class'\?"
    ):
        request_of("knn", "all", metric="mean_per_clas")
    with pytest.raises(UserError, match="--transfer concerns --protocol logistic only"):
        request_of("knn,linear", "all", transfer=True)
    with pytest.raises(UserError, match="use --labels all"):
        request_of("logistic", "1%,all", transfer=True)


@pytest.mark.parametrize(
    ("protocol", "settings", "message"),
    [
        *(
            (protocol, settings, message)
            for protocol in ("segmentation", "patch_knn", "segmentation,patch_knn")
            for settings, message in (
                ({"labels": "1%"}, "use --labels all"),
                ({"draws": 3}, "--draws is for protocols that judge by labels, not for"),
                ({"metric": "mean_per_class"}, "--metric is for protocols that judge by labels, not for"),
                ({"plot": True}, "--plot is for protocols that judge by labels, not for"),
                ({"augment": True}, "--augment concerns --protocol linear only"),
                ({"transfer": True}, "--transfer concerns --protocol logistic only"),
                ({"freeze": "conv1"}, "--freeze concerns --protocol finetune only"),
                ({"save_networks": True}, "--save-networks concerns --protocol finetune only"),
            )
        ),
        ("segmentation", {"heads": "linear", "finetune_rates": "0.5"}, "--finetune-rates is for .* fcn only"),
        ("segmentation", {"heads": "linear", "finetune_epochs": 3}, "--finetune-epochs is for .* fcn only"),
        ("patch_knn", {"finetune_rates": "0.5"}, "--finetune-rates concerns --protocol finetune or segmen"),
        ("patch_knn", {"finetune_epochs": 3}, "--finetune-epochs concerns --protocol finetune or segmen"),
        ("patch_knn", {"heads": "linear"}, "--heads concerns --protocol segmentation only"),
        ("patch_knn", {"report": True}, "patch_knn has no report"),
        ("knn", {"classes": "a,b"}, "--classes concerns --protocol segmentation or patch_knn only"),
        ("knn", {"void": 0}, "--void concerns --protocol segmentation or patch_knn only"),
        ("segmentation", {"classes": "a,b,a"}, "--classes names 'a' 2 times"),
        ("segmentation", {"heads": "lin"}, "unknown head 'lin'"),
        ("segmentation,knn", {}, "ask for them in a command of their own"),
    ],
)
def test_flags_that_mean_nothing_beside_masks(protocol: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        request_of(protocol, **{"labels": "all", **settings})


def test_the_grid_is_of_the_fcn() -> None:
    request = request_of("segmentation,patch_knn", "all", finetune_rates="0.5,1", finetune_epochs="3")
    assert [(setting.lr, setting.epochs) for setting in request.grid] == [(0.5, 3), (1.0, 3)]
