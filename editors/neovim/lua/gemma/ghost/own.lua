-- What is suggested in a buffer: kept while it is typed over, forgotten when it does not fit the text any more.
--
-- On Neovim 0.11 this asks the server and draws. On 0.12 the editor does both; this watches what it shows, and
-- takes over what it cannot do (the rest of a suggestion taken in part, another one) until its next answer.
local api = vim.api
local draw = require('gemma.ghost.draw')
local pieces = require('gemma.ghost.pieces')

local M = {}

---@class gemma.ghost.Suggestion
---@field client_id integer
---@field row integer from 0
---@field col integer the byte column at which the text begins
---@field behind integer bytes of the line behind the cursor
---@field tail integer how many of them the text replaces
---@field text string
---@field command? lsp.Command
---@field foreign boolean whether the editor draws it

---@class gemma.ghost.Buffer
---@field client_id integer
---@field asks boolean whether we ask the server after each key
---@field group integer
---@field timer uv.uv_timer_t
---@field ticket integer the newest request, by our count
---@field request? integer the newest request, by the client's
---@field suggestion? gemma.ghost.Suggestion

---@type table<integer, gemma.ghost.Buffer>
local buffers = {}

--- The handlers of our own requests, to tell them from the editor's.
---@type table<function, true>
M.handlers = setmetatable({}, { __mode = 'k' })

-- The line and the place in it that a suggestion for a buffer is about.
---@param bufnr integer
---@return integer? row from 0
---@return integer col
---@return string line
local function cursor(bufnr)
  if api.nvim_get_current_buf() ~= bufnr then
    return nil, 0, ''
  end
  local row, col = unpack(api.nvim_win_get_cursor(0))
  return row - 1, col, api.nvim_get_current_line()
end

---@return boolean
local function inserting()
  return vim.startswith(api.nvim_get_mode().mode, 'i')
end

-- What of the suggestion is still to come at the cursor; nil where it does not fit the text any more.
---@param bufnr integer
---@return gemma.ghost.Place?
local function place(bufnr)
  local suggestion = buffers[bufnr] and buffers[bufnr].suggestion
  if not suggestion then
    return nil
  end
  local row, col, line = cursor(bufnr)
  if row ~= suggestion.row or col < suggestion.col or #line - col ~= suggestion.behind then
    return nil
  end
  local typed = line:sub(suggestion.col + 1, col)
  local rest = suggestion.text:sub(#typed + 1)
  if rest == '' or suggestion.text:sub(1, #typed) ~= typed or pieces.begins_inside_character(rest) then
    return nil
  end
  return { row = row, col = col, end_col = col + suggestion.tail, rest = rest }
end

---@param buffer gemma.ghost.Buffer
local function cancel(buffer)
  buffer.timer:stop()
  buffer.ticket = buffer.ticket + 1
  local client = buffer.request and vim.lsp.get_client_by_id(buffer.client_id)
  if client then
    client:cancel_request(buffer.request)
  end
  buffer.request = nil
end

--- Takes the grey text away, and whatever was asked for.
---@param bufnr integer
function M.clear(bufnr)
  local buffer = buffers[bufnr]
  if buffer then
    cancel(buffer)
    buffer.suggestion = nil
  end
  draw.clear(bufnr)
end

-- Draws the suggestion where it fits, or forgets it.
---@param bufnr integer
---@return gemma.ghost.Place? place where there is grey text now
local function show(bufnr)
  local at = place(bufnr)
  local suggestion = buffers[bufnr].suggestion
  if at and suggestion and not suggestion.foreign then
    draw.draw(bufnr, at)
    return at
  end
  draw.clear(bufnr)
  if not at then
    buffers[bufnr].suggestion = nil
  end
  return at
end

---@param bufnr integer
---@param client vim.lsp.Client
---@param item lsp.InlineCompletionItem
---@return gemma.ghost.Suggestion?
local function suggestion_of(bufnr, client, item)
  local text = item.insertText
  local row, col, line = cursor(bufnr)
  if type(text) ~= 'string' or not row then
    return nil
  end
  local from, to, range = col, col, item.range
  if range then
    if range.start.line ~= row or range['end'].line ~= row then
      return nil
    end
    from = vim.str_byteindex(line, client.offset_encoding, range.start.character, false)
    to = vim.str_byteindex(line, client.offset_encoding, range['end'].character, false)
  end
  return {
    client_id = client.id,
    row = row,
    col = from,
    behind = #line - col,
    tail = math.max(0, to - col),
    text = text,
    command = item.command,
    foreign = false,
  }
end

--- Takes an item of an answer over as what is suggested.
---@param bufnr integer
---@param client vim.lsp.Client
---@param item? lsp.InlineCompletionItem
---@param foreign boolean whether the editor draws it
function M.adopt(bufnr, client, item, foreign)
  local buffer = buffers[bufnr]
  if not buffer then
    return
  end
  cancel(buffer)
  buffer.suggestion = item and inserting() and suggestion_of(bufnr, client, item) or nil
  if buffer.suggestion then
    buffer.suggestion.foreign = foreign
  end
  if show(bufnr) and item then
    require('gemma.statistics').shown(client, item)
  end
end

-- Of several suggestions the one after what is shown; the first where none of them is.
---@param items lsp.InlineCompletionItem[]
---@param shown? string
---@return lsp.InlineCompletionItem?
local function pick(items, shown)
  for index, item in ipairs(items) do
    if shown and type(item.insertText) == 'string' and vim.endswith(item.insertText, shown) then
      return items[index % #items + 1]
    end
  end
  return items[1]
end

--- Asks the server for a suggestion at the cursor; where the user asks and there is one, for another.
---@param bufnr integer
---@param kind lsp.InlineCompletionTriggerKind 1: the user asks, 2: we do
---@param done? fun(item?: lsp.InlineCompletionItem) called before the item is shown
function M.request(bufnr, kind, done)
  local buffer = buffers[bufnr]
  local client = buffer and vim.lsp.get_client_by_id(buffer.client_id)
  if not (client and client.initialized and cursor(bufnr)) then
    return
  end
  cancel(buffer)
  local ticket = buffer.ticket
  local shown = kind == 1 and M.rest(bufnr) or nil
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding) --[[@as table]]
  params.context = { triggerKind = kind }
  local function handler(err, result)
    if buffers[bufnr] ~= buffer or buffer.ticket ~= ticket then
      return
    end
    buffer.request = nil
    if err then
      vim.lsp.log.error('gemma', err)
      return
    end
    require('gemma.cost').heard(result)
    local item = result and pick(result.items or result, shown)
    if done then
      done(item)
    end
    M.adopt(bufnr, client, item, false)
  end
  M.handlers[handler] = true
  local _, request = client:request('textDocument/inlineCompletion', params, handler, bufnr)
  buffer.request = request
end

-- After a key or a move: what was typed over stays, anything else is asked for anew.
---@param bufnr integer
local function changed(bufnr)
  local buffer = buffers[bufnr]
  if show(bufnr) then
    return
  end
  cancel(buffer)
  if not buffer.asks or vim.fn.reg_executing() ~= '' then
    return
  end
  local ticket = buffer.ticket
  buffer.timer:start(
    require('gemma.config').options.ghost.debounce,
    0,
    vim.schedule_wrap(function()
      if buffers[bufnr] == buffer and buffer.ticket == ticket and inserting() then
        M.request(bufnr, 2)
      end
    end)
  )
end

--- Begins to watch a buffer.
---@param bufnr integer
---@param client_id integer
---@param asks boolean whether we ask the server after each key
function M.attach(bufnr, client_id, asks)
  M.detach(bufnr)
  local group = api.nvim_create_augroup('gemma.ghost.' .. bufnr, {})
  buffers[bufnr] = {
    client_id = client_id,
    asks = asks,
    group = group,
    timer = assert(vim.uv.new_timer()),
    ticket = 0,
  }
  api.nvim_create_autocmd({ 'InsertEnter', 'TextChangedI', 'TextChangedP', 'CursorMovedI' }, {
    group = group,
    buffer = bufnr,
    desc = 'Keep grey text that fits, ask for new',
    callback = function()
      changed(bufnr)
    end,
  })
  api.nvim_create_autocmd({ 'InsertLeave', 'BufLeave' }, {
    group = group,
    buffer = bufnr,
    desc = 'Take grey text away',
    callback = function()
      M.clear(bufnr)
    end,
  })
  api.nvim_create_autocmd({ 'BufUnload', 'BufDelete' }, {
    group = group,
    buffer = bufnr,
    desc = 'Forget the buffer',
    callback = function()
      M.detach(bufnr)
    end,
  })
  if inserting() and api.nvim_get_current_buf() == bufnr then
    changed(bufnr)
  end
end

--- Stops watching a buffer.
---@param bufnr integer
function M.detach(bufnr)
  local buffer = buffers[bufnr]
  if not buffer then
    return
  end
  M.clear(bufnr)
  buffers[bufnr] = nil
  buffer.timer:close()
  api.nvim_del_augroup_by_id(buffer.group)
end

--- The text that could be taken at the cursor.
---@param bufnr integer
---@return string?
function M.rest(bufnr)
  local at = place(bufnr)
  return at and at.rest
end

--- The buffers that are watched.
---@return integer[]
function M.buffers()
  return vim.tbl_keys(buffers)
end

--- Puts a piece of the suggestion into the text; the rest of it stays suggested.
---@param bufnr integer
---@param kind gemma.Piece
function M.take(bufnr, kind)
  local at, buffer = place(bufnr), buffers[bufnr]
  local suggestion = buffer and buffer.suggestion
  if not (at and suggestion) then
    return
  end
  local text = pieces.first(at.rest, kind)
  local all = text == at.rest
  local lines = vim.split(text, '\n', { plain = true })
  api.nvim_buf_set_text(bufnr, at.row, at.col, at.row, all and at.end_col or at.col, lines)
  local row, col = at.row + #lines - 1, (#lines == 1 and at.col or 0) + #lines[#lines]
  api.nvim_win_set_cursor(0, { row + 1, col })
  cancel(buffer)
  if all then
    buffer.suggestion = nil
  else
    suggestion.row, suggestion.col, suggestion.text = row, col, at.rest:sub(#text + 1)
    suggestion.foreign = false
  end
  show(bufnr)
  require('gemma.statistics').taken(suggestion, kind, text)
end

return M
