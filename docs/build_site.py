"""What mkdocs is told of this project: README, changelog and contributing as pages, and links that leave the folder.

Files below `docs/` link to each other and to sources as they lie in a checkout, so that they can be read there, too.
Of the site's pages a link to a source becomes plain text, or, with `repo_url` in mkdocs.yml, a link to the repository.
"""

import posixpath
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
FROM_ROOT = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
SOURCES = {page: file for file, page in FROM_ROOT.items()}
PACKAGES = {"jax_alexnet": "python -m jax_alexnet.", "torch_ref": "python -m torch_ref.", "parity": "python -m parity "}
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```)", re.M | re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie at the root of a checkout, and one that the commands write themselves."""
    for source, page in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "commands.md", content=_commands()))
    return files


def _commands() -> str:
    """A page of every command's `--help`."""
    parts = ["# Commands\n\nWhat each command says of itself with `--help`.\n"]
    for package, how in PACKAGES.items():
        listing = _said(package, "--help")
        parts.append(f"## {package}\n\n```text\n{listing}```\n")
        for name in re.findall(r"^  (\w+) +\S", listing, re.M):
            words = f"{how}{name}".split()[2:]
            parts.append(f"### {how}{name}\n\n```text\n{_said(*words, '--help')}```\n")
    return "\n".join(parts)


def _said(*words: str) -> str:
    """What `python -m WORDS` prints."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise PluginError(f"python -m {' '.join(words)} failed:\n{done.stderr}")
    return done.stdout


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of a checkout into the site's; code in fences stays."""
    here = page.file.src_uri
    source = SOURCES.get(here) or f"docs/{here}"

    def mend(found: re.Match[str]) -> str:
        return _mended(found, source, here, files, config.repo_url)

    return "".join(part if part.startswith("```") else LINK.sub(mend, part) for part in FENCE.split(markdown))


def _mended(found: re.Match[str], source: str, here: str, files: Files, repository: str | None) -> str:
    """One link of the file `source`, for the page `here`.

    Raises:
        PluginError: it leads nowhere.
    """
    target, _, anchor = found["target"].partition("#")
    if not target or re.match(r"[a-z]+:", target):
        return found[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    page = FROM_ROOT.get(path) or path.removeprefix("docs/")
    file = files.get_file_from_path(page)
    if not (ROOT / path).exists() and file is None:
        raise PluginError(f"{source} links to {found['target']}, and there is no {path}")
    if file is not None and file.inclusion.is_included():
        relative = posixpath.relpath(page, posixpath.dirname(here) or ".")
        return f"{found['picture']}[{found['text']}]({relative}{'#' + anchor if anchor else ''})"
    if repository:
        return f"[{found['text']}]({repository.rstrip('/')}/blob/main/{path})"
    return found["text"]
