"""The documentation: every Python snippet runs and prints what it says, each relative link works.

A page's blocks that are marked ``python`` run one after the other as one program, in a process of its own. A
comment behind ``print(...)`` on the same line is what that line prints; a page's comments, in order, are all
that the page prints. The report in the README is compared with what the program says.
"""

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIME_LIMIT = 40  # seconds for one page; each needs less than two

READMES = ["README.md", "README.zh-CN.md"]
PAGES = [*READMES, *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "benches/README.md", "crates/raddle/README.md"]

FENCE = re.compile(r"^```(\w*)$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$")


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text):
    """Each fenced block as (language, number of the line before its first, its lines)."""
    found = []
    inside = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if inside is not None:
            if line == "```":
                found.append(inside)
                inside = None
            else:
                inside[2].append(line)
        elif fence:
            inside = (fence.group(1), number, [])
        else:
            assert not line.startswith("```"), f"line {number}: a fence that is not understood: {line}"
    assert inside is None, f"the block that begins at line {inside[1]} has no end"
    return found


def program(text):
    """The page's snippets as one program, each line at the number it has in the page."""
    lines = [""] * len(text.splitlines())
    for language, before, code in blocks(text):
        if language == "python":
            lines[before : before + len(code)] = code
    return "\n".join(lines) + "\n"


def promised(source):
    """What the comments behind print() say."""
    lines = source.splitlines()
    return [
        token.string.removeprefix("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and lines[token.start[0] - 1].lstrip().startswith("print(")
    ]


def plain(text):
    """The page without its code."""
    lines = text.splitlines()
    for _, before, code in blocks(text):
        lines[before : before + len(code)] = [""] * len(code)
    return "\n".join(lines)


def anchors(text):
    """The names by which GitHub links to the headings."""
    headings = [match.group(1) for line in plain(text).splitlines() if (match := HEADING.match(line))]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if "\n```python\n" in read(page)])
def test_snippets_run(page, tmp_path):
    source = program(read(page))
    (tmp_path / "page.py").write_text(source, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-X", "utf8", "-W", "error::SyntaxWarning", "page.py"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=TIME_LIMIT,
    )
    assert ended.returncode == 0, f"{page} (line numbers are the page's):\n{ended.stderr}"
    assert ended.stdout.splitlines() == promised(source), ended.stderr


def test_both_readmes_have_the_same_code():
    one, other = (blocks(read(page)) for page in READMES)
    runnable = [[code for language, _, code in found if language == "python"] for found in (one, other)]
    assert runnable[0] == runnable[1]
    # What is typed is the same; the comments behind it, and words in brackets, are in the page's language.
    shape = [
        [(language, [re.sub(r"\s*#.*|\[\.\.\..*", "", line) for line in code]) for language, _, code in found]
        for found in (one, other)
    ]
    assert shape[0] == shape[1]


def alike(text):
    """The output of the tour without what differs between runs: who is who, and the folder."""
    text = text.replace(f"{ROOT}/", "")
    text = re.sub(r"Ann-to-Ben|Ben-to-Ann", "THREAD", text).replace("#2", "")
    text = re.sub(r"(Ann|Ben) has paid (Ann|Ben) \d+", "PAID", text)
    return re.sub(r"balances: \d+ \d+", "BALANCES", text)


def test_the_deadlock_report_is_the_program_s():
    command = [sys.executable, "-m", "raddle", "run", "examples/tour_deadlock.py"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=TIME_LIMIT)
    said = set(alike(ended.stdout + ended.stderr).splitlines())
    (shown,) = [code for language, _, code in blocks(read("README.md")) if code[0].startswith("$ raddle run")]
    kept = [line for line in shown[1:] if not re.match(r" *(\[\.\.\.|\^+$)", line)]
    assert len(kept) > 15
    assert [line for line in kept if alike(line) not in said] == []


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    text = read(page)
    broken = []
    for target in LINK.findall(plain(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path) if path else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", LINKED)
def test_nothing_belongs_to_one_machine(page):
    found = re.findall(r"/(?:work|tmp|root|home)\b\S*", read(page))
    assert not found
