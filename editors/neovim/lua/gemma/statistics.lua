-- What was shown and taken is told to the server, which counts it on this machine.
local M = {}

-- The server's number of a suggestion: it comes in the command that is run once it was taken.
---@param command? lsp.Command
---@return integer|string|nil
local function id_of(command)
  local argument = command and command.arguments and command.arguments[1]
  return type(argument) == 'table' and argument.id or nil
end

--- A suggestion is on the screen.
---@param client vim.lsp.Client
---@param item lsp.InlineCompletionItem
function M.shown(client, item)
  local id = id_of(item.command)
  if id then
    client:notify('gemma/didShowCompletion', { id = id })
  end
end

--- A piece of a suggestion is in the text.
---@param suggestion gemma.ghost.Suggestion
---@param kind gemma.Piece
---@param text string
function M.taken(suggestion, kind, text)
  local client = vim.lsp.get_client_by_id(suggestion.client_id)
  local command = suggestion.command
  if not (client and command) then
    return
  end
  if kind == 'whole' then
    client:exec_cmd(command, { bufnr = vim.api.nvim_get_current_buf() })
  else
    client:notify('gemma/didAcceptCompletion', { id = id_of(command), kind = kind, text = text })
  end
end

return M
