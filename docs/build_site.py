"""Builds the documents as a website in build/site: `python docs/build_site.py`, or `make docs`.

The site has the README and every document of the repository that it leads to, in the order of its links. They are
copied to build/site-source with the folders that they have in the repository, so that relative links hold there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site-source"
SITE = ROOT / "build" / "site"
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def reached(start: Path) -> list[Path]:
    """The start and all files that relative links lead to from there, nearest first.

    The links of one file count in the order of their last mention: the list of documents ends the README.
    """
    found = [start]
    for path in found:
        if path.suffix == ".md":
            links = reversed(_LINK.findall(path.read_text(encoding="utf-8")))
            targets = dict.fromkeys((path.parent / link).resolve() for link in links)
            found += [target for target in reversed(targets) if target not in found]
    return found


def navigation(pages: Sequence[str]) -> list[dict[str, object]]:
    """mkdocs' nav of pages, by their paths: the README, then a section for each folder."""
    decisions = sorted(page for page in pages if re.match(r"docs/decisions/\d", page))
    sections: dict[str, list[object]] = {"Guide": [], "Reference": [], "Nets": [], "Project": []}
    for page in pages:
        if page in decisions:
            continue
        if page == "docs/decisions/README.md":
            sections["Project"].append({"Decisions": [page, *decisions]})
        elif page.startswith("docs/reference/"):
            sections["Reference"].append(page)
        elif page.startswith("docs/"):
            sections["Guide"].append(page)
        elif page.startswith("models/"):
            sections["Nets"].append(page)
        elif page != "README.md":
            sections["Project"].append(page)
    return [{"Home": "README.md"}, *({title: section} for title, section in sections.items() if section)]


def main() -> None:
    """Copy the sources and build the site; mkdocs raises Abort where it warns of something."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    files = [path.relative_to(ROOT) for path in (*reached(ROOT / "README.md"), ROOT / "docs" / "site.css")]
    for path in files:
        (SOURCE / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, SOURCE / path)
    config = load_config(
        str(ROOT / "docs" / "mkdocs.yml"),
        docs_dir=str(SOURCE),
        site_dir=str(SITE),
        nav=navigation([path.as_posix() for path in files if path.suffix == ".md"]),
        strict=True,
    )
    config.plugins.on_startup(command="build", dirty=False)
    build(config)


if __name__ == "__main__":
    main()
