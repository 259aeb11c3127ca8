-- Tells the server where the cursor came to rest, so that it can read what a suggestion there will need.
local api = vim.api

local M = {}

-- How long the cursor stays where it is before that counts.
local REST_MS = 150

---@class gemma.cursor.Place
---@field bufnr integer
---@field row integer
---@field col integer
---@field tick integer of the text

-- There is one cursor.
local timer = assert(vim.uv.new_timer())

---@type gemma.cursor.Place?
local told

---@type table<integer, { client_id: integer, group: integer }>
local buffers = {}

---@param client vim.lsp.Client
---@return boolean
local function wants(client)
  local ours = vim.tbl_get(client.server_capabilities, 'experimental', 'gemma')
  return type(ours) == 'table' and ours.didMoveCursor == true
end

---@param bufnr integer
---@return boolean
local function is_off(bufnr)
  local settings = require('gemma.config').options.settings or {}
  return vim.list_contains(settings.languagesOff or {}, vim.bo[bufnr].filetype)
end

---@param bufnr integer
---@return gemma.cursor.Place? place nothing where another buffer has the cursor
local function place(bufnr)
  if api.nvim_get_current_buf() ~= bufnr then
    return nil
  end
  local row, col = unpack(api.nvim_win_get_cursor(0))
  return { bufnr = bufnr, row = row, col = col, tick = api.nvim_buf_get_changedtick(bufnr) }
end

---@param bufnr integer
local function tell(bufnr)
  local client = buffers[bufnr] and vim.lsp.get_client_by_id(buffers[bufnr].client_id)
  local now = place(bufnr)
  if not (client and now) or is_off(bufnr) or vim.deep_equal(now, told) then
    return
  end
  told = now
  client:notify('gemma/didMoveCursor', vim.lsp.util.make_position_params(0, client.offset_encoding))
end

-- After a move: it counts when no other follows.
---@param bufnr integer
local function moved(bufnr)
  timer:start(
    REST_MS,
    0,
    vim.schedule_wrap(function()
      if vim.startswith(api.nvim_get_mode().mode, 'n') then
        tell(bufnr)
      end
    end)
  )
end

-- Whoever goes into insert mode is about to write there: that counts at once.
---@param bufnr integer
local function entered(bufnr)
  timer:stop()
  local tick = api.nvim_buf_get_changedtick(bufnr)
  -- The cursor may still be where it cannot be in insert mode.
  vim.schedule(function()
    if api.nvim_buf_is_valid(bufnr) and api.nvim_buf_get_changedtick(bufnr) == tick then
      tell(bufnr)
    end
  end)
end

--- Begins to tell of the cursor in a buffer, if the server wants to know.
---@param bufnr integer
---@param client_id integer
function M.attach(bufnr, client_id)
  M.detach(bufnr)
  local client = vim.lsp.get_client_by_id(client_id)
  if not (client and wants(client) and vim.startswith(vim.uri_from_bufnr(bufnr), 'file:///')) then
    return
  end
  local group = api.nvim_create_augroup('gemma.cursor.' .. bufnr, {})
  buffers[bufnr] = { client_id = client_id, group = group }
  local function on(events, desc, callback)
    api.nvim_create_autocmd(events, {
      group = group,
      buffer = bufnr,
      desc = desc,
      callback = function()
        callback(bufnr)
      end,
    })
  end
  on({ 'BufEnter', 'CursorMoved' }, 'Tell where the cursor comes to rest', moved)
  on({ 'InsertEnter' }, 'Tell where somebody is about to write', entered)
  on({ 'BufUnload', 'BufDelete' }, 'Forget the buffer', M.detach)
  if api.nvim_get_current_buf() == bufnr then
    moved(bufnr)
  end
end

--- Ends it.
---@param bufnr integer
function M.detach(bufnr)
  if buffers[bufnr] then
    api.nvim_del_augroup_by_id(buffers[bufnr].group)
    buffers[bufnr] = nil
  end
end

--- Tells once more where the cursor is: to a model that has just become ready.
function M.again()
  told = nil
  moved(api.nvim_get_current_buf())
end

return M
