# SPDX-License-Identifier: Apache-2.0
# Trees, text, JSON and big numbers in Python.
export PATH=/usr/bin:$PATH
cat > /tmp/p.py <<'END'
import json, re, sys
n = int(sys.argv[1])

class Node:
    __slots__ = ("key", "left", "right")
    def __init__(self, key):
        self.key, self.left, self.right = key, None, None

def insert(root, key):
    while root.key != key:
        side = "left" if key < root.key else "right"
        child = getattr(root, side)
        if child is None:
            setattr(root, side, Node(key))
            return
        root = child

def walk(node):
    if node:
        yield from walk(node.left)
        yield node.key
        yield from walk(node.right)

root, x = Node(1 << 30), 1
for _ in range(n):
    x = x * 1103515245 + 12345 & 0x7fffffff
    insert(root, x)
print(sum(i * k for i, k in enumerate(walk(root))))
words = {}
text = " ".join(f"w{i * i % 977:x}" for i in range(4 * n))
for word in re.findall(r"w([0-9a-f]+)", text):
    words[word] = words.get(word, 0) + 1
print(len(words), max(words.items(), key=lambda w: (w[1], w[0])))
rows = [{"id": i, "name": f"n{i % 100}", "x": [i / 7, -i, None, True]} for i in range(n)]
back = json.loads(json.dumps(rows, indent=1))
print(sorted(back, key=lambda r: (r["name"], -r["id"]))[n // 2], back == rows)
print(hex(pow(3, 10 ** (n // 200), 10 ** 40 + 1)), len(hex(7 ** n)))
END
python3.13 -S -I /tmp/p.py $1
