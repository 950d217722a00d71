# SPDX-License-Identifier: Apache-2.0
# Loops, maps, objects and JSON, compiled by V8 at run time.
export PATH=/usr/bin:$PATH
cat > /tmp/n.js <<'END'
const n = +process.argv[2];
function life(size, steps) {
    let a = new Uint8Array(size * size).map((_, i) => (i * i * 31 >> 3) & 1), b = new Uint8Array(size * size);
    for (let s = 0; s < steps; s++, [a, b] = [b, a])
        for (let y = 0; y < size; y++)
            for (let x = 0; x < size; x++) {
                let c = 0;
                for (let j = -1; j < 2; j++)
                    for (let i = -1; i < 2; i++)
                        c += a[(y + j + size) % size * size + (x + i + size) % size];
                c -= a[y * size + x];
                b[y * size + x] = c === 3 || (c === 2 && a[y * size + x]) ? 1 : 0;
            }
    return a.reduce((s, v) => s + v, 0);
}
console.log(life(128, n));
const map = new Map();
for (let i = 0; i < n * 2000; i++) map.set('k' + i * 7919 % 10007, (map.get('k' + i * 7919 % 10007) || 0) + i);
console.log(map.size, [...map.values()].reduce((a, b) => a ^ b, 0));
class V { constructor(x, y) { this.x = x; this.y = y; } add(o) { return new V(this.x + o.x, this.y - o.y); } }
let v = new V(0, 0);
for (let i = 0; i < n * 20000; i++) v = v.add(new V(i & 3, 0.5));
console.log(v.x, v.y);
const words = JSON.stringify([...map].slice(0, 3000)).match(/k\d+/g).sort();
console.log(words.length, words[words.length >> 1], JSON.parse(JSON.stringify(words)).join('').length);
END
node /tmp/n.js $1
