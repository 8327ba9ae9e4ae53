"""The stable door holds what it promises. (Who may go through it, and what that loads, is seen in test_walls.py.)"""

from issgd_cli import library

# Add to these. Whoever takes one out, or renames it, breaks the loops of others.
PROMISED = {
    *("IssgdError", "Loss", "Proposal", "Scores", "cross_entropy", "entropy_constant", "generator", "load_parameters"),
    *("ImportanceLoader", "ImportanceSampler", "Minibatch", "per_example", "weighted_backward"),
    *("mlp", "refuse_unsupported", "score", "smoothed", "supported_layers", "variance_optimal_constant"),
}


def test_what_it_lists_is_what_there_is() -> None:
    assert library.__all__ == sorted(set(library.__all__))
    assert set(library.__all__) == {name for name in vars(library) if not name.startswith("_")}


def test_no_name_that_was_promised_is_taken_back() -> None:
    assert set(library.__all__) >= PROMISED


def test_everything_in_it_is_documented() -> None:
    assert not [name for name in library.__all__ if not getattr(library, name).__doc__]
