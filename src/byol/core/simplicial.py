"""Simplicial embeddings (arXiv 2204.00616): features as several discrete distributions side by side."""

from torch import Tensor, nn

from byol.errors import UserError


class SimplicialEmbedding(nn.Module):
    """Linear - BN, then a softmax with a temperature within each group of outputs.

    Args:
        inputs: width of the features.
        num_simplices: number of groups L.
        simplex_size: outputs V in each group; a group's outputs add up to 1.
        temperature: of the softmax, above 0; a low one makes each group nearly one-hot.

    Raises:
        UserError: a number is out of its range.
    """

    def __init__(self, inputs: int, num_simplices: int, simplex_size: int, temperature: float) -> None:
        if num_simplices < 1 or simplex_size < 2 or not temperature > 0:
            raise UserError(
                f"num_simplices is {num_simplices}, simplex_size {simplex_size} and simplex_temperature "
                f"{temperature}: they must be at least 1, at least 2 and above 0"
            )
        super().__init__()
        self.linear = nn.Linear(inputs, num_simplices * simplex_size)
        self.norm = nn.BatchNorm1d(num_simplices * simplex_size)
        self.num_simplices = num_simplices
        self.temperature = temperature

    def forward(self, features: Tensor) -> Tensor:
        """Return embeddings [B,L x V] of features [B,D]."""
        logits = self.norm(self.linear(features)) / self.temperature
        groups = logits.unflatten(1, (self.num_simplices, -1))  # [B,L,V]
        embeddings: Tensor = groups.softmax(dim=-1).flatten(1)  # [B,L x V]
        return embeddings
