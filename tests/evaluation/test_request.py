import pytest

from byol.errors import UserError
from byol.evaluation.request import parsed_request


def test_lists_are_split_and_doubles_dropped() -> None:
    request = parsed_request("knn, logistic,knn", "1,5,10%,all", draws=3)
    assert request.protocols == ("knn", "logistic")
    assert request.amounts == (1, 5, "10%", "all")
    assert parsed_request("knn", 5).amounts == (5,)


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
        parsed_request(protocol, labels)


def test_other_limits() -> None:
    with pytest.raises(UserError, match="draws"):
        parsed_request("knn", "5", draws=0)
    with pytest.raises(UserError, match="--augment"):
        parsed_request("knn", "all", augment=True)


def test_metric_and_transfer() -> None:
    assert parsed_request("knn", "all").metric == "top1"
    request = parsed_request("knn,logistic", "all", metric="mean_per_class", transfer=True)
    assert (request.metric, request.transfer) == ("mean_per_class", True)
    with pytest.raises(UserError, match=r"unknown metric 'mean_per_clas'. Did you mean 'mean_per_class'\?"):
        parsed_request("knn", "all", metric="mean_per_clas")
    with pytest.raises(UserError, match="--transfer concerns --protocol logistic only"):
        parsed_request("knn,linear", "all", transfer=True)
    with pytest.raises(UserError, match="use --labels all"):
        parsed_request("logistic", "1%,all", transfer=True)
