"""Preprocessor of mdBook: rewrites links to files outside of the book to URLs of the repository.

Pages link to files such as ARCHITECTURE.md relatively, so that the links work in a checkout and on GitHub. In a rendered
book TRUNKLINE_REPOSITORY, such as https://github.com/OWNER/NAME/blob/main, replaces the root of the repository.
"""

import json
import os
import posixpath
import re
import sys

SOURCE = "docs/book/src"
LINK = re.compile(r"\]\(([^)#:]+)(#[^)]*)?\)")


def rewrite(chapter, repository):
    """Rewrites the links of a chapter and its sub-chapters."""
    folder = posixpath.join(SOURCE, posixpath.dirname(chapter["path"] or ""))

    def outside(link):
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        is_inside = posixpath.commonpath([path, SOURCE]) == SOURCE
        return link[0] if is_inside else f"]({repository}/{path}{link[2] or ''})"

    chapter["content"] = LINK.sub(outside, chapter["content"])
    for item in chapter["sub_items"]:
        if "Chapter" in item:
            rewrite(item["Chapter"], repository)


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    _, book = json.load(sys.stdin)
    if repository := os.environ.get("TRUNKLINE_REPOSITORY"):
        for item in book.get("sections") or book.get("items"):
            if "Chapter" in item:
                rewrite(item["Chapter"], repository.rstrip("/"))
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
