"""Everyday code, for what ordinary predictions heed.

Python's own library, and in our own writing what any developer writes in Python, and other languages. No gate
looks at it; no figure is taken on it.
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
    """Some dozens of pieces of code, a page each at most; a part of Python without a source is left out."""
    return [*filter(None, map(_of_library, _LIBRARY)), *_IDIOMS, *_OTHERS]


def _of_library(name: str) -> str:
    with contextlib.suppress(OSError, ImportError, UnicodeDecodeError):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            return Path(spec.origin).read_text(encoding="utf-8")[_START : _START + _CHARACTERS]
    return ""


#: What code of any developer is full of.
_IDIOMS = (
    """# sort a list of tuples by the second value
data.sort(key=lambda pair: pair[1])

# remove all empty strings
lines = [line for line in lines if line]

# how long all open tasks take together
total = sum(task.hours for task in tasks if not task.done)

# read a file line by line
with open("data.txt") as file:
    for line in file:
        print(line.rstrip())

# the index of every match
found = [i for i, word in enumerate(words) if word == wanted]
""",
    """# a dictionary from each name to its age
ages = {person.name: person.age for person in people}

# apply a function to every item
result = list(map(lambda x: x * 2, items))

# group by the first letter
for word in words:
    groups[word[0]].append(word)

# the three latest entries
latest = sorted(entries, reverse=True)[:3]

# join the numbers with commas
print(",".join(str(n) for n in numbers))
""",
    """names = [name for name in words if name]
squares = {n: n * n for n in range(10)}
pairs = [(a, b) for a, b in zip(left, right) if a != b]
total = sum(price for price in prices)
first = next((user for user in users if user.id == key), None)
for i, row in enumerate(rows):
    print(i, row)
for key, value in table.items():
    counts[key] = counts.get(key, 0) + value
ordered = sorted(items, key=lambda item: item.name)
words.sort(key=lambda w: (-len(w), w))
""",
    """best = max(scores, key=lambda x: x[1])
even = list(filter(lambda n: n % 2 == 0, numbers))
lengths = list(map(lambda s: len(s), lines))
flat = [x for part in parts for x in part]
unique = {line.strip() for line in file}
ok = all(isinstance(v, int) for v in values)
index = [i for i, c in enumerate(text) if c == " "]
for line in open(path):
    fields = line.split(",")
for a, b in pairs:
    seen.add((a, b))
while queue:
    node = queue.pop()
""",
    """def clean(text):
    return "".join(c for c in text if c.isalnum())


def invert(table):
    return {value: key for key, value in table.items()}


def top(records, count):
    records = sorted(records, key=lambda r: r["score"], reverse=True)
    return [record["name"] for record in records[:count]]


result = dict((k, v) for k, v in data)
total = reduce(lambda a, b: a + b, numbers)
matrix = [[0 for _ in range(width)] for _ in range(height)]
""",
    """def overdue(loans, today):
    \"\"\"Loans that should be back by now, in the order in which they were made.

    >>> overdue([Loan("atlas", 3), Loan("novel", 9)], 5)
    [Loan('atlas', 3)]
    \"\"\"
    late = []
    for loan in loans:
        if loan.due < today:
            late.append(loan)
    return late


def stock_value(shelf):
    \"\"\"What all books of a shelf cost together.\"\"\"
    return sum(book.price * book.copies for book in shelf)
""",
    """def collisions(boxes):
    \"\"\"How many boxes overlap another.\"\"\"
    count = 0
    for i in range(len(boxes)):
        for j in range(i + 1, len(boxes)):
            if boxes[i].overlaps(boxes[j]):
                count += 1
    return count


def is_workday(day):
    # nobody works at the weekend
    if day.weekday() > 4:
        return False
    for holiday in holidays:
        if holiday == day:
            return False
    return True
""",
)

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
