-- gemma-ls in Neovim: what a configuration calls.
local M = {}

local enabled = true
local is_set_up = false

local function highlights()
  -- 0.12 has a group for it; before, what is not text looks like this.
  local usual = vim.fn.hlexists('ComplHint') == 1 and 'ComplHint' or 'NonText'
  vim.api.nvim_set_hl(0, 'GemmaGhost', { link = usual, default = true })
  vim.api.nvim_set_hl(0, 'GemmaReference', { link = 'Underlined', default = true })
  vim.api.nvim_set_hl(0, 'GemmaContext', { link = 'Comment', default = true })
end

--- Starts everything. Without it nothing of the plugin is loaded.
---@param options? gemma.Options
function M.setup(options)
  local config = require('gemma.config')
  local problems = config.set(options)
  if #problems > 0 then
    require('gemma.message').error('in the options of setup:\n- ' .. table.concat(problems, '\n- '))
  end
  highlights()
  vim.cmd.runtime('plugin/gemma.lua')
  require('gemma.keymaps').plugs()
  require('gemma.keymaps').set(config.options.keymaps)
  vim.lsp.commands['gemma.ask'] = function(command)
    require('gemma.chat').ask(command.arguments[1])
  end
  vim.lsp.commands['gemma.didAcceptCompletion'] = function(command, context)
    local client = vim.lsp.get_client_by_id(context.client_id)
    if client then
      client:notify('gemma/didAcceptCompletion', command.arguments[1])
    end
  end
  enabled = config.options.ghost.enabled
  is_set_up = true
  require('gemma.status').set_enabled(enabled)
  require('gemma.client').enable()
end

--- Whether `setup` was called; a command that needs it says so where it was not.
---@return boolean
function M.is_set_up()
  return is_set_up
end

--- Whether grey text is on.
---@return boolean
function M.is_enabled()
  return enabled
end

--- Turns grey text on or off, in all files.
---@param on? boolean the other way round where it is missing
---@return boolean on
function M.toggle(on)
  if on == nil then
    on = not enabled
  end
  enabled = on
  require('gemma.status').set_enabled(on)
  local ghost, client = require('gemma.ghost'), require('gemma.client').get()
  for bufnr in pairs(client and client.attached_buffers or {}) do
    if on then
      ghost.attach(bufnr, client.id)
    else
      ghost.detach(bufnr)
    end
  end
  return on
end

--- Turns grey text on or off in files of a type, by the setting `languagesOff`.
---@param filetype? string the current file's where it is missing
---@return boolean on
---@return string filetype
function M.toggle_filetype(filetype)
  filetype = filetype or vim.bo.filetype
  local settings = require('gemma.config').options.settings
  local off = settings.languagesOff or {}
  local is_off = vim.list_contains(off, filetype)
  settings.languagesOff = vim.tbl_filter(function(language)
    return language ~= filetype
  end, off)
  if not is_off then
    table.insert(settings.languagesOff, filetype)
    require('gemma.ghost').dismiss()
  end
  require('gemma.client').settings_changed()
  return is_off, filetype
end

--- Takes the suggestion. For a mapping with `expr`: the text changes after this returns.
---@return boolean taken false where nothing is suggested
function M.accept()
  return require('gemma.ghost').accept('whole')
end

--- Takes the suggestion's next word.
---@return boolean taken
function M.accept_word()
  return require('gemma.ghost').accept('word')
end

--- Takes the suggestion's next line.
---@return boolean taken
function M.accept_line()
  return require('gemma.ghost').accept('line')
end

--- Asks for a suggestion, also where the settings say `trigger = 'manual'`; for another one where there is one.
function M.next()
  require('gemma.ghost').next()
end

--- Takes the suggestion away until the next key.
---@return boolean dismissed false where nothing is suggested
function M.dismiss()
  return require('gemma.ghost').dismiss()
end

--- Whether something is suggested at the cursor.
---@return boolean
function M.visible()
  return require('gemma.ghost').visible()
end

--- The server's state in a few characters, for a statusline: `%{%v:lua.require'gemma'.statusline()%}`.
---@return string
function M.statusline()
  return require('gemma.status').statusline()
end

return M
