"""Everyday code, for what ordinary predictions heed.

Python's own library, and other languages in our own writing. No gate looks at it; no figure is taken on it.
"""

import contextlib
import importlib.util
from pathlib import Path

__all__ = ["texts"]

#: Parts of Python, whose source is where Python is; from so far in, past licences and docstrings.
_LIBRARY = (
    "json.decoder", "argparse", "textwrap", "csv", "statistics", "shlex", "fractions", "glob", "ast",
    "calendar",
)  # fmt: skip
_START, _CHARACTERS = 2000, 2200


def texts() -> list[str]:
    """Some dozen pieces of code, a page each at most; a part of Python without a source is left out."""
    return [*filter(None, map(_of_library, _LIBRARY)), *_OTHERS]


def _of_library(name: str) -> str:
    with contextlib.suppress(OSError, ImportError, UnicodeDecodeError):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            return Path(spec.origin).read_text(encoding="utf-8")[_START : _START + _CHARACTERS]
    return ""


_OTHERS = (
    """const express = require("express");
const app = express();

app.use(express.json());

app.post("/items", (req, res) => {
  const { name, price } = req.body;
  if (!name) {
    return res.status(400).json({ error: "name is required" });
  }
  items.push({ id: items.length + 1, name, price });
  res.status(201).json(items[items.length - 1]);
});
""",
    """public class Counter {
    private final Map<String, Integer> counts = new HashMap<>();

    public void add(String word) {
        counts.merge(word, 1, Integer::sum);
    }

    public int get(String word) {
        return counts.getOrDefault(word, 0);
    }
}
""",
    """#!/bin/bash
set -euo pipefail

for file in "$@"; do
    if [ ! -f "$file" ]; then
        echo "no such file: $file" >&2
        exit 1
    fi
    gzip -9 "$file"
done
""",
    """fn longest(words: &[String]) -> Option<&String> {
    let mut best: Option<&String> = None;
    for word in words {
        if best.map_or(true, |b| word.len() > b.len()) {
            best = Some(word);
        }
    }
    best
}
""",
    """SELECT o.id, c.name, SUM(l.price * l.quantity) AS total
FROM orders AS o
JOIN customers AS c ON c.id = o.customer_id
JOIN lines AS l ON l.order_id = o.id
WHERE o.status = 'paid'
GROUP BY o.id, c.name
HAVING SUM(l.price * l.quantity) > 100
ORDER BY total DESC;
""",
    """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <title>Shop</title>
    <link rel="stylesheet" href="style.css" />
  </head>
  <body>
    <ul id="items"></ul>
    <script src="app.js"></script>
  </body>
</html>
""",
    """import { useEffect, useState } from "react";

export function Users({ url }: { url: string }) {
  const [users, setUsers] = useState<User[]>([]);

  useEffect(() => {
    fetch(url)
      .then((response) => response.json())
      .then(setUsers);
  }, [url]);

  return <ul>{users.map((user) => <li key={user.id}>{user.name}</li>)}</ul>;
}
""",
    """#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s number\\n", argv[0]);
        return EXIT_FAILURE;
    }
    long n = strtol(argv[1], NULL, 10);
    for (long i = 1; i <= n; i++) {
        printf("%ld\\n", i * i);
    }
    return EXIT_SUCCESS;
}
""",
    """name: test
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: pip install -e .
      - run: pytest
""",
)
