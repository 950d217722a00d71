# SPDX-License-Identifier: Apache-2.0
# Queens and strings in Lua.
export PATH=/usr/bin:$PATH
cat > /tmp/l.lua <<'END'
local n = tonumber(arg[1])
local function queens(n)
    local found, cols, up, down = 0, {}, {}, {}
    local function place(row)
        if row > n then found = found + 1 return end
        for c = 1, n do
            if not (cols[c] or up[row + c] or down[row - c + n]) then
                cols[c], up[row + c], down[row - c + n] = true, true, true
                place(row + 1)
                cols[c], up[row + c], down[row - c + n] = nil, nil, nil
            end
        end
    end
    place(1)
    return found
end
print(queens(n))
local parts = {}
for i = 1, n * 4000 do parts[#parts + 1] = string.format("%d:%s", i, string.rep("x", i % 7)) end
local text = table.concat(parts, ";")
local sum = 0
for number, xs in text:gmatch("(%d+):(x*)") do sum = sum + tonumber(number) * #xs end
print(#text, sum)
END
lua5.4 /tmp/l.lua $1
