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
