-- Grey text on the screen, by extmarks: what the line would be, with what stays of it left in place.
local api = vim.api
local M = {}

local namespace = api.nvim_create_namespace('gemma.ghost')

---@class gemma.ghost.Place
---@field row integer from 0
---@field col integer the byte column from which the grey text stands
---@field end_col integer the byte column up to which the line's text would be replaced
---@field rest string what would stand between the two

-- Where the tab stop after a screen column is.
---@param bufnr integer
---@param column integer
---@return integer
local function tab_stop(bufnr, column)
  local stops = vim.split(vim.bo[bufnr].vartabstop, ',', { trimempty = true })
  local stop = 0
  for _, width in ipairs(stops) do
    stop = stop + tonumber(width)
    if stop > column then
      return stop
    end
  end
  local width = tonumber(stops[#stops]) or vim.bo[bufnr].tabstop
  return stop + (math.floor((column - stop) / width) + 1) * width
end

-- Tabs as spaces: virtual text does not show them as the buffer does.
---@param bufnr integer
---@param text string
---@param column integer the screen column at which the text begins
---@return string
local function expand(bufnr, text, column)
  local out = {}
  for part, tab in text:gmatch('([^\t]*)(\t?)') do
    column = column + vim.fn.strdisplaywidth(part, column)
    out[#out + 1] = part
    if tab ~= '' then
      local stop = tab_stop(bufnr, column)
      out[#out + 1] = (' '):rep(stop - column)
      column = stop
    end
  end
  return table.concat(out)
end

-- Shares out `rest` around the characters of `tail` that stay: for the tail `)` and the rest `a, b)`
-- it is `a, b` before the bracket. Nil where the tail does not stay, character for character.
---@param rest string
---@param tail string
---@return { offset: integer, text: string }[]? pieces, each with the offset in `tail` before which it stands
local function around(rest, tail)
  local pieces = {}
  local from = #rest
  for _, start in ipairs(vim.fn.reverse(vim.str_utf_pos(tail))) do
    local char = tail:sub(start, start + vim.str_utf_end(tail, start))
    local at ---@type integer?
    for place = from - #char + 1, 1, -1 do
      if rest:sub(place, place + #char - 1) == char then
        at = place
        break
      end
    end
    if not at then
      return nil
    end
    pieces[#pieces + 1] = { offset = start - 1 + #char, text = rest:sub(at + #char, from) }
    from = at - 1
  end
  pieces[#pieces + 1] = { offset = 0, text = rest:sub(1, from) }
  return pieces
end

--- Takes the grey text of a buffer away.
---@param bufnr integer
function M.clear(bufnr)
  if api.nvim_buf_is_valid(bufnr) then
    api.nvim_buf_clear_namespace(bufnr, namespace, 0, -1)
  end
end

--- Draws the grey text of a buffer, in place of what was drawn before.
---@param bufnr integer
---@param place gemma.ghost.Place
function M.draw(bufnr, place)
  M.clear(bufnr)
  local line = api.nvim_buf_get_lines(bufnr, place.row, place.row + 1, true)[1]
  local column = vim.fn.strdisplaywidth(line:sub(1, place.col))
  local lines = vim.split(place.rest, '\n', { plain = true })
  local tail = line:sub(place.col + 1, place.end_col)
  -- In front of a character, combined text would take that one's colours: a matched bracket's, say.
  local mode = place.col < #line and 'replace' or 'combine'
  local pieces = #lines == 1 and around(place.rest, tail)
  if pieces then
    for _, piece in ipairs(pieces) do
      if piece.text ~= '' then
        local kept = vim.fn.strdisplaywidth(tail:sub(1, piece.offset), column)
        api.nvim_buf_set_extmark(bufnr, namespace, place.row, place.col + piece.offset, {
          virt_text = { { expand(bufnr, piece.text, column + kept), 'GemmaGhost' } },
          virt_text_pos = 'inline',
          hl_mode = mode,
        })
      end
    end
    return
  end

  -- What is behind the cursor would move: it is covered here, and drawn in grey text's wake.
  local behind, after = line:sub(place.col + 1), line:sub(place.end_col + 1)
  local here = { { expand(bufnr, lines[1], column), 'GemmaGhost' } }
  local below = {} ---@type [string, string][][]
  for index = 2, #lines do
    below[index - 1] = { { expand(bufnr, lines[index], 0), 'GemmaGhost' } }
  end
  if after ~= '' then
    local last, from = below[#below] or here, #below == 0 and column or 0
    last[2] = { expand(bufnr, after, from + vim.fn.strdisplaywidth(last[1][1])), 'Normal' }
  end
  local width = 0
  for _, chunk in ipairs(here) do
    width = width + vim.fn.strdisplaywidth(chunk[1])
  end
  here[#here + 1] = { (' '):rep(vim.fn.strdisplaywidth(behind, column) - width), 'Normal' }
  api.nvim_buf_set_extmark(bufnr, namespace, place.row, place.col, {
    virt_text = here,
    virt_text_pos = behind == '' and 'inline' or 'overlay',
    virt_lines = below,
    hl_mode = mode,
  })
end

return M
