"""A small built-in sample of everyday code, of our own writing, on which no repair should change much."""

__all__ = ["TEXTS"]

TEXTS = (
    """def read_config(path):
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    for key, value in config.items():
        if value is None:
            raise ValueError(f"missing value for {key}")
    return config
""",
    """class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()
""",
    """import numpy as np
import matplotlib.pyplot as plt

x = np.linspace(0, 2 * np.pi, 200)
plt.plot(x, np.sin(x), label="sine")
plt.legend()
plt.show()
""",
    """export async function loadUsers(url: string): Promise<User[]> {
  const response = await fetch(url);
  if (!response.ok) {
    throw new Error(`request failed: ${response.status}`);
  }
  return response.json();
}
""",
    """func Sum(values []int) int {
	total := 0
	for _, value := range values {
		total += value
	}
	return total
}
""",
    """SELECT customer_id, COUNT(*) AS orders
FROM orders
WHERE created_at >= '2024-01-01'
GROUP BY customer_id
ORDER BY orders DESC
LIMIT 10;
""",
)
