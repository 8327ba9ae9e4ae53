"""`issgd doctor --network`: how each layer's gradient norms are found, and what they cost, as a table."""

import typer
from rich.console import Console
from rich.table import Table

MINIBATCH = 32


def explain(network: str, data: str | None, data_dir: str, assigned: list[str]) -> None:
    """Prints the table for a network on a minibatch of a prepared dataset."""
    import torch

    from issgd_cli.clusters.resuming import dataset_of
    from issgd_cli.config.layers import assignments, merged
    from issgd_cli.config.values import is_place
    from issgd_cli.experiments import experiment as experiments
    from issgd_cli.networks import naming
    from issgd_cli.problem import Problem
    from issgd_cli.scores.explanation import explained

    if is_place(network):
        naming.name(network)
    given = {"model": {"network": network}, "data": {"dir": data_dir} | ({"name": data} if data else {})}
    config = experiments.single().one(None, None, merged(given, assignments(assigned)), None).config
    problem = Problem(config, dataset_of(config))
    model = problem.initial_network(config.seed, torch.device("cpu")).eval()
    inputs, targets = problem.examples("train", torch.device("cpu"))[slice(0, MINIBATCH)]
    table = Table(
        title=f"{network} on {problem.data.name}: norms of {len(targets)} examples", title_justify="left", box=None
    )
    for column, justify in (("layer", "left"), ("parameters", "right"), ("found by", "left"), ("cost", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("why")
    for part in explained(problem.loss, model, inputs, targets):
        table.add_row(
            part.name, f"{part.parameters:,}", part.way, f"{part.cost:.3f}", part.why if part.way != "rule" else ""
        )
    Console().print(table)
    typer.echo("Cost: beside the backward pass, in plain forward and backward passes of the same minibatch.")
