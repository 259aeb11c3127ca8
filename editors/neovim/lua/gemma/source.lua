-- What the sources for completion menus have in common: one question, and an end for it.
local M = {}

---@class gemma.source.Answer
---@field items lsp.CompletionItem[]
---@field incomplete boolean

local NOTHING = { items = {}, incomplete = false }

--- The client that completes in a buffer.
---@param bufnr integer
---@return vim.lsp.Client?
function M.client(bufnr)
  return vim.lsp.get_clients({ name = 'gemma', bufnr = bufnr })[1]
end

--- Asks for what belongs at the cursor; calls back once, whatever happens.
---@param bufnr integer
---@param position { row: integer, col: integer } the row from 0, the column in bytes
---@param invoked boolean whether the user asked
---@param callback fun(answer: gemma.source.Answer)
---@return fun() cancel
function M.ask(bufnr, position, invoked, callback)
  local client = M.client(bufnr)
  local line = vim.api.nvim_buf_get_lines(bufnr, position.row, position.row + 1, false)[1]
  if not client or not line then
    callback(NOTHING)
    return function() end
  end
  local open, request, forget = true, nil, nil
  local function once(answer)
    if open then
      open = false
      forget()
      callback(answer)
    end
  end
  forget = require('gemma.client').at_end(function()
    once(NOTHING)
  end)
  local params = {
    textDocument = { uri = vim.uri_from_bufnr(bufnr) },
    position = {
      line = position.row,
      character = vim.str_utfindex(line, client.offset_encoding, math.min(position.col, #line), false),
    },
    -- The protocol calls typing "invoked" too; only the third kind is surely not the user's.
    context = { triggerKind = invoked and 1 or 3 },
  }
  _, request = client:request('textDocument/completion', params, function(err, result)
    if err or not result then
      once(NOTHING)
    else
      once({ items = result.items or result, incomplete = result.isIncomplete or false })
    end
  end, bufnr)
  if not request then
    once(NOTHING)
  end
  return function()
    if open and request then
      client:cancel_request(request)
    end
    once(NOTHING)
  end
end

return M
