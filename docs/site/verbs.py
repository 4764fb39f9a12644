"""The directive ``verbs``: each verb of the command line with its arguments, from its parser."""

from __future__ import annotations

import argparse
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from flatmin import cli


class Verbs(SphinxDirective):
    """A section a verb: what it does, how it is called, what each argument means."""

    def run(self) -> list[nodes.Node]:
        """Give the sections."""
        return [self._section(name) for name in cli.VERBS]

    def _section(self, name: str) -> nodes.section:
        parser = cli.parser_of(name)
        section = nodes.section(ids=[f"flatmin-{name}"], names=[f"flatmin {name}"])
        section += nodes.title(text=f"flatmin {name}")
        section += nodes.paragraph(text=f"{cli.VERBS[name].capitalize()}.")
        listed = nodes.definition_list()
        for action in parser._actions:
            if (
                action.help not in (None, argparse.SUPPRESS)
                and "--help" not in action.option_strings
            ):
                listed += self._item(action)
        section += listed
        if parser.epilog:
            section += nodes.paragraph(text=parser.epilog)
        self.state.document.note_explicit_target(section)
        return section

    def _item(self, action: argparse.Action) -> nodes.definition_list_item:
        name = ", ".join(action.option_strings) or (action.metavar or action.dest)
        term = nodes.term("", "", nodes.literal(text=str(name)))
        if action.option_strings and (values := self._values(action)):
            term += nodes.Text(f" {values}")
        text = str(action.help) % {**vars(action), "prog": "flatmin"}
        return nodes.definition_list_item(
            "", term, nodes.definition("", nodes.paragraph(text=text))
        )

    @staticmethod
    def _values(action: argparse.Action) -> str:
        """What is to be given, such as FILE or one of a few words."""
        if action.nargs == 0:
            return ""
        if action.metavar:
            return str(action.metavar)
        return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("verbs", Verbs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
