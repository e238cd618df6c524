"""`inferno webhooks`: who is told of what, asked of the server that does the telling."""

from __future__ import annotations

from typing import Any

import click

from inferno.cli import options, output
from inferno.cli.client import connect, path_of, server_options
from inferno.webhooks.endpoints import EVENTS


@click.group(cls=output.SuggestingGroup)
def webhooks() -> None:
    """Have a running server tell others of events."""


@webhooks.command("list")
@server_options
@options.json_option
def list_webhooks(as_json: bool, **where: Any) -> None:
    """List your webhooks (never the secrets)."""
    with connect(**where) as server:
        found = server.get("/webhooks")["webhooks"]
    if as_json:
        output.print_json(found)
    elif found:
        rows = [
            (w["id"], w["webhook_url"], ", ".join(w["events"]), output.when(w["created"]), w["disabled"] or "")
            for w in found
        ]
        output.print_table(("ID", "URL", "EVENTS", "CREATED (UTC)", "DISABLED"), rows)
    else:
        output.err.print("No webhooks yet. Try: inferno webhooks add URL --event batch.complete")


@webhooks.command()
@click.argument("target", metavar="URL")
@click.option("--event", "events", multiple=True, required=True, type=click.Choice(EVENTS), help="May be repeated.")
@click.option("--secret", help="Signs the messages; asked for when it is `-`, made when it is not given.")
@server_options
@options.json_option
def add(target: str, events: tuple[str, ...], secret: str | None, as_json: bool, **where: Any) -> None:
    """Tell URL of events.

    A secret that is made is printed, this once.
    """
    if secret == "-":  # noqa: S105
        secret = click.prompt("Secret", hide_input=True, confirmation_prompt=True, err=True)
    body = {"webhook_url": target, "events": events} | ({"secret": secret} if secret else {})
    with connect(**where) as server:
        _show(server.post("/webhooks", body), as_json)


@webhooks.command()
@click.argument("webhook_id", metavar="ID")
@server_options
@options.json_option
def remove(webhook_id: str, as_json: bool, **where: Any) -> None:
    """Delete the webhook ID.

    What waits to be sent to it is not sent any more.
    """
    with connect(**where) as server:
        gone = server.delete(path_of("webhooks", webhook_id))
    if as_json:
        output.print_json(gone)
    else:
        print(f"{gone['id']} has been deleted.")


@webhooks.command()
@click.argument("webhook_id", metavar="ID")
@server_options
@options.json_option
def test(webhook_id: str, as_json: bool, **where: Any) -> None:
    """Send a made-up message to the webhook ID."""
    with connect(**where) as server:
        queued = server.post(path_of("webhooks", webhook_id, "test"))
    if as_json:
        output.print_json(queued)
    else:
        print(f"{queued['delivery']} is {queued['status']}. `inferno webhooks deliveries {queued['id']}` shows it.")


@webhooks.command()
@click.argument("webhook_id", metavar="ID")
@server_options
@options.json_option
def deliveries(webhook_id: str, as_json: bool, **where: Any) -> None:
    """List what was sent to the webhook ID.

    Newest first, and what came of it.
    """
    with connect(**where) as server:
        found = server.get(path_of("webhooks", webhook_id, "deliveries"))["deliveries"]
    if as_json:
        output.print_json(found)
    elif found:
        output.print_table(
            ("ID", "EVENT", "STATE", "ATTEMPTS", "CREATED", "NEXT ATTEMPT", "STATUS", "ERROR"), map(_row, found)
        )
    else:
        output.err.print("Nothing was sent yet.")


def _row(delivery: dict[str, Any]) -> tuple[object, ...]:
    names = ("id", "event", "state", "attempts", "created", "next_attempt", "last_status", "last_error")
    return tuple("" if delivery[name] is None else delivery[name] for name in names)


@webhooks.command()
@click.argument("webhook_id", metavar="ID")
@server_options
@options.json_option
def rotate(webhook_id: str, as_json: bool, **where: Any) -> None:
    """Give the webhook ID a new secret.

    It is printed, this once; the old one signs as well for a day.
    """
    with connect(**where) as server:
        _show(server.post(path_of("webhooks", webhook_id, "secret")), as_json)


@webhooks.command()
@click.argument("delivery_id", metavar="DELIVERY")
@server_options
@options.json_option
def replay(delivery_id: str, as_json: bool, **where: Any) -> None:
    """Send the message DELIVERY again."""
    with connect(**where) as server:
        delivery = server.post(path_of("webhooks", "deliveries", delivery_id, "replay"))
    if as_json:
        output.print_json(delivery)
    else:
        print(f"{delivery['id']} is {delivery['state']} again.")


def _show(webhook: dict[str, Any], as_json: bool) -> None:
    """The secret alone goes to standard output, so that `$(...)` can take it."""
    if as_json:
        output.print_json(webhook)
        return
    told = f"{webhook['id']} tells {webhook['webhook_url']} of {', '.join(webhook['events'])}."
    if "secret" not in webhook:
        print(told)
        return
    output.err.print(f"{told} Its secret is shown this once:", highlight=False, markup=False, soft_wrap=True)
    print(webhook["secret"])
