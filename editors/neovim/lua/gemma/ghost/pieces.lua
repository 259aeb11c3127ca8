-- What one press takes of a suggestion: all of it, its next word, or its next line.
local M = {}

---@alias gemma.Piece 'whole'|'word'|'line'

-- Characters as a reader counts them: a base with its combining marks is one.
---@param text string
---@param index integer from 0
---@return string
local function character(text, index)
  return vim.fn.strcharpart(text, index, 1, true)
end

---@param text string
---@return string
local function word(text)
  local space = text:match('^%s*')
  local rest = text:sub(#space + 1)
  local first = character(rest, 0)
  if first == '' then
    return space
  end
  -- The classes are Vim's own, so a word here is what `w` would go over, in any script.
  local class, taken, index = vim.fn.charclass(first), first, 1
  while true do
    local next = character(rest, index)
    if next == '' or vim.fn.charclass(next) ~= class then
      return space .. taken
    end
    taken, index = taken .. next, index + 1
  end
end

--- The beginning of `text` that is taken.
---@param text string
---@param kind gemma.Piece
---@return string
function M.first(text, kind)
  if kind == 'word' then
    return word(text)
  elseif kind == 'line' then
    -- At the end of a line the next one is meant.
    return text:match('^\n?[^\n]*')
  end
  return text
end

--- Whether a text begins with a mark that belongs to the character before it, and so cannot stand alone.
---@param text string
---@return boolean
function M.begins_inside_character(text)
  return text ~= '' and vim.fn.strcharlen('a' .. text) == vim.fn.strcharlen(text)
end

return M
