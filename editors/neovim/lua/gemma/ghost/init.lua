-- Grey text: which of the two ways shows it, and what the user does with it.
local api = vim.api
local cursor = require('gemma.cursor')
local editor = require('gemma.ghost.editor')
local own = require('gemma.ghost.own')

local M = {}

-- Whether the editor's own inline completion shows the grey text.
---@return boolean
local function by_editor()
  return require('gemma.config').options.ghost.engine ~= 'own' and editor.available()
end

--- Who shows the grey text, in words.
---@return string
function M.shown_by()
  return by_editor() and 'its own inline completion' or 'the plugin'
end

--- Called once for each client, before it is used.
---@param client vim.lsp.Client
function M.watch(client)
  if by_editor() then
    editor.watch(client)
  end
end

--- Begins to suggest in a buffer.
---@param bufnr integer
---@param client_id integer
function M.attach(bufnr, client_id)
  own.attach(bufnr, client_id, not by_editor())
  cursor.attach(bufnr, client_id)
  if by_editor() then
    editor.enable(bufnr, true)
  end
end

--- Ends it.
---@param bufnr integer
function M.detach(bufnr)
  own.detach(bufnr)
  cursor.detach(bufnr)
  if by_editor() and api.nvim_buf_is_valid(bufnr) then
    editor.enable(bufnr, false)
  end
end

---@param next fun()
local function without_editors(next)
  if by_editor() then
    editor.hide(api.nvim_get_current_buf(), next)
  else
    next()
  end
end

--- Takes the suggestion at the cursor, or a piece of it.
---
--- The text changes after this returns, so that a mapping with `expr` can call it.
---@param kind? gemma.Piece
---@return boolean taken whether there was one
function M.accept(kind)
  if not own.rest(api.nvim_get_current_buf()) then
    return false
  end
  without_editors(function()
    -- Through the keys, because only `<C-g>u` closes an undo step while text is typed: what was typed
    -- before, what is taken and what is typed next are undone one by one.
    local keys = ('<C-g>u<Cmd>lua require("gemma.ghost").take("%s")<CR><C-g>u'):format(kind or 'whole')
    api.nvim_feedkeys(vim.keycode(keys), 'ni', false)
  end)
  return true
end

--- Puts the piece into the text; called by the keys that `accept` feeds.
---@param kind gemma.Piece
function M.take(kind)
  own.take(api.nvim_get_current_buf(), kind)
end

--- Asks for a suggestion, for another one where there is one.
function M.next()
  local bufnr = api.nvim_get_current_buf()
  local before = own.rest(bufnr)
  own.request(bufnr, 1, function(item)
    if not item or (before and vim.endswith(item.insertText, before)) then
      api.nvim_echo({ { before and 'gemma: no other suggestion.' or 'gemma: nothing to suggest here.' } }, false, {})
    elseif by_editor() then
      editor.hide(bufnr, function() end)
    end
  end)
end

--- Takes the grey text away until the next key.
---@return boolean dismissed whether there was any
function M.dismiss()
  local bufnr = api.nvim_get_current_buf()
  if not own.rest(bufnr) then
    return false
  end
  own.clear(bufnr)
  without_editors(function() end)
  return true
end

--- Whether there is grey text that could be taken.
---@return boolean
function M.visible()
  return own.rest(api.nvim_get_current_buf()) ~= nil
end

--- Asks once more in the buffer that is typed in, for a model that has just become ready.
function M.refresh()
  local bufnr = api.nvim_get_current_buf()
  if vim.startswith(api.nvim_get_mode().mode, 'i') and not own.rest(bufnr) then
    own.request(bufnr, 2)
  end
end

return M
