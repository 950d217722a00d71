# SPDX-License-Identifier: Apache-2.0
"""What a RELAX NG schema in XML syntax allows below an element: enough of it to list names."""
import pathlib
import xml.etree.ElementTree as ET

NS = "{http://relaxng.org/ns/structure/1.0}"


class Grammar:
    def __init__(self, path):
        self.defines, self.starts, self.cache = {}, [], {}
        self.read(pathlib.Path(path))

    def read(self, path):
        self.collect(ET.parse(path).getroot(), path.parent)

    def collect(self, node, folder):
        for child in node:
            if child.tag == NS + "include":
                self.read(folder / child.get("href"))
                self.collect(child, folder)
            elif child.tag == NS + "define":
                self.defines.setdefault(child.get("name"), []).append(child)
            elif child.tag == NS + "start":
                self.starts.append(child)
            elif child.tag == NS + "div":
                self.collect(child, folder)

    def direct(self, nodes, seen=None):
        """(separator, name, node) of the elements and attributes directly within nodes."""
        seen = set() if seen is None else seen
        for node in nodes:
            for child in node:
                if child.tag == NS + "ref":
                    if child.get("name") not in seen:
                        seen.add(child.get("name"))
                        yield from self.direct(self.defines.get(child.get("name"), []), seen)
                elif child.tag in (NS + "element", NS + "attribute"):
                    names = [child.get("name")] if child.get("name") else [n.text for n in child.iter(NS + "name")]
                    # Elements of other programs' namespaces.
                    if child.get("ns") or (child.tag == NS + "element" and self.foreign(child)):
                        continue
                    for name in names:
                        yield "@" if child.tag == NS + "attribute" else "/", name, child
                else:
                    yield from self.direct([child], seen)

    @staticmethod
    def foreign(node):
        return ":" in (node.get("name") or "")

    def nodes(self, root, path):
        """The patterns of the element at a path such as "devices/disk"."""
        key = (root, path)
        if key not in self.cache:
            if path:
                above, _, name = path.rpartition("/")
                within, wanted = self.nodes(root, above), name
            else:
                within, wanted = self.starts, root
            self.cache[key] = [node for sep, name, node in self.direct(within) if sep == "/" and name == wanted]
        return self.cache[key]

    def children(self, root, path):
        out = []
        for sep, name, _ in self.direct(self.nodes(root, path)):
            if path or sep == "@":
                out.append(f"{path}{sep}{name}")
            else:
                out.append(name)
        return out
