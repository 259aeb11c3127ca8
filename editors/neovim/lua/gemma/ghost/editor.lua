-- Grey text by Neovim's own inline completion (0.12): the editor asks and draws, we watch its answers.
local own = require('gemma.ghost.own')

local M = {}

--- Whether this Neovim can.
---@return boolean
function M.available()
  return vim.lsp.inline_completion ~= nil and vim.lsp.inline_completion.get ~= nil
end

--- Lets us see what the editor is told: it has no event for it.
---@param client vim.lsp.Client
function M.watch(client)
  local request = client.request
  client.request = function(self, method, params, handler, bufnr)
    if method == 'textDocument/inlineCompletion' and handler and not own.handlers[handler] then
      local show = handler
      handler = function(err, result, context)
        own.clear(context.bufnr)
        show(err, result, context)
        require('gemma.cost').heard(result)
        local item = not err and result and (result.items or result)[1]
        own.adopt(context.bufnr, client, item or nil, true)
      end
    end
    return request(self, method, params, handler, bufnr)
  end
end

---@param bufnr integer
---@param on boolean
function M.enable(bufnr, on)
  vim.lsp.inline_completion.enable(on, { bufnr = bufnr })
end

--- Takes the editor's grey text away, then goes on.
---@param bufnr integer
---@param next fun()
function M.hide(bufnr, next)
  local shown = vim.lsp.inline_completion.get({
    bufnr = bufnr,
    on_accept = function()
      next()
    end,
  })
  if not shown then
    next()
  end
end

return M
