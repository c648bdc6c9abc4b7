"""`optimum-int8 push DIR REPO`: publish an INT8 checkpoint on the Hub, in one commit or as a pull request."""

from __future__ import annotations

import argparse
import dataclasses

from .result import Result

NAME = "push"
HELP = "publish an INT8 checkpoint on the Hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("folder", metavar="DIR", help="INT8 model, as `quantize` saved it")
    parser.add_argument("repo", metavar="REPO", help='repository on the Hub ("user/name"); made when it does not exist')
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="NAME", help="branch; made when it does not exist (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="propose a pull request instead of committing")
    parser.add_argument("--commit-message", metavar="TEXT", help="title of the commit or of the pull request")
    parser.add_argument(
        "--token", help="access token (default: HF_TOKEN or `hf auth login`, which no shell history remembers)"
    )


def run(args: argparse.Namespace) -> Result:
    """Check the folder, then publish it; its `README.md` becomes the card; without one it is rendered from its evaluation."""
    from ..hub import push_folder

    pushed = push_folder(
        args.folder,
        args.repo,
        private=args.private or None,
        revision=args.revision,
        create_pr=args.create_pr,
        token=args.token,
        commit_message=args.commit_message,
    )
    values = {"folder": args.folder, **dataclasses.asdict(pushed)}
    if pushed.pull_request:
        shown = f"The pull request is {pushed.pull_request}"
    elif pushed.changed:
        shown = f"The commit is {pushed.url}"
    else:
        shown = f"Nothing to change: {pushed.repo_id} holds this checkpoint already ({pushed.url})"
    return Result(values, [shown])
