"""Collects the pages of the site: stage.py FOLDER.

The pages are the Markdown files of the repository, at the paths that they have there, so that they stay readable on a Git host and
links between them work in both. Every other file that a page links to is copied. A link to a folder leads to its README.md or,
without one, to a generated list of its files. The menu is docs/README.md: its sections, with the first link of each row.
"""

import json
import posixpath
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MENU = "docs/README.md"
PAGES = ["*.md", "docs/*.md", "examples/*.md", "examples/*/*.md", "integrations/**/*.md"]
CODE = re.compile(r"^ *(```+).*?^ *\1|`[^`\n]*`", re.M | re.S)
# a relative link, not one to a server or to a heading of the same page
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")


def inside(page, target):
    """Returns the path of a link's target from the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def menu():
    """Returns the navigation in TOML. Arrays and strings have the form of JSON there."""
    sections = [("Selvage", ["README.md", MENU])]
    for line in (ROOT / MENU).read_text().splitlines():
        if line.startswith("## "):
            sections.append((line[3:], []))
        elif row := re.match(r"\| \[[^]]+\]\(([^)#]+\.md)\)", line):
            sections[-1][1].append(inside(MENU, row[1]))
    return [f"{{ {json.dumps(title)} = {json.dumps(pages)} }}" for title, pages in sections]


def stage_page(page, out):
    """Writes a page, and what it links to unless that is a page as well."""

    def follow(match):
        start, target, heading = match[1], match[2], match[3] or ""
        path = inside(page, target)
        source, copy = ROOT / path, out / path
        if source.is_dir():
            target = target.rstrip("/") + "/README.md"
            if not (source / "README.md").is_file():
                copy.mkdir(parents=True, exist_ok=True)
                names = sorted(entry.name + "/" * entry.is_dir() for entry in source.iterdir())
                (copy / "README.md").write_text(f"# {path}\n\n" + "".join(f"* `{name}`\n" for name in names))
        elif source.is_file() and source.suffix != ".md":
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        return start + target + heading

    text = (ROOT / page).read_text()
    # code has no links; what is between two pieces of code is prose
    parts, at = [], 0
    for code in CODE.finditer(text):
        parts += [LINK.sub(follow, text[at : code.start()]), code[0]]
        at = code.end()
    parts.append(LINK.sub(follow, text[at:]))
    (out / page).parent.mkdir(parents=True, exist_ok=True)
    (out / page).write_text("".join(parts))


def main():
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    pages = {str(path.relative_to(ROOT)) for pattern in PAGES for path in ROOT.glob(pattern)}
    for page in sorted(page for page in pages if "node_modules" not in page):
        stage_page(page, folder / "pages")
    for name in ["site.css", "iframe-worker.js"]:
        shutil.copyfile(HERE / name, folder / "pages" / name)
    nav = ",\n  ".join(menu())
    settings = (HERE / "zensical.toml").read_text()
    # top-level keys of [project] come before its first table
    (folder / "zensical.toml").write_text(settings.replace("[project]\n", f"[project]\nnav = [\n  {nav},\n]\n", 1))


if __name__ == "__main__":
    main()
