-- `:checkhealth gemma`: what is there, what is missing, and what to do about it.
local M = {}

local health = vim.health

-- How long the server may take to answer.
local PATIENCE_MS = 3000

local function neovim()
  health.start('gemma: Neovim')
  local version = tostring(vim.version())
  if vim.fn.has('nvim-0.11') == 0 then
    health.error(('Neovim %s is too old.'):format(version), 'Install Neovim 0.11 or newer.')
    return false
  end
  local by = require('gemma.ghost').shown_by()
  health.ok(('Neovim %s; grey text is shown by %s.'):format(version, by))
  if not pcall(vim.treesitter.language.inspect, 'markdown') then
    health.info('There is no treesitter parser for Markdown: the chat is highlighted by patterns.')
  end
  return true
end

---@return boolean
local function set_up()
  if require('gemma').is_set_up() then
    return true
  end
  health.warn('The plugin is not set up.', "Call require('gemma').setup{} in your configuration. See |gemma-setup|.")
  return false
end

---@return boolean
local function program()
  health.start('gemma: the server')
  local options = require('gemma.config').options
  local path = vim.fn.exepath(options.cmd[1])
  if path == '' then
    health.error(('The program %s was not found.'):format(options.cmd[1]), {
      'Install it: cargo install --locked --path server, in the repository of gemma-ls.',
      'Or name its path: setup{ cmd = { "/path/to/gemma-ls", "lsp" } }.',
    })
    return false
  end
  local done = vim.system({ path, '--version' }, { text = true }):wait(PATIENCE_MS)
  health.ok(('%s: %s'):format(path, vim.trim(done.stdout or '')))
  return true
end

local function running()
  local client = require('gemma.client').get()
  if not client then
    health.info('The server is not running; it starts with the first file.')
    return
  end
  local answer = client:request_sync('gemma/status', vim.empty_dict(), PATIENCE_MS)
  local status = answer and answer.result
  if not status then
    health.error(
      'The server does not answer.',
      { ':Gemma log tells what it wrote.', ':Gemma restart starts it again.' }
    )
    return
  end
  for _, line in ipairs(require('gemma.report').status_lines(status)) do
    if vim.startswith(line, 'settings: ') then
      health.warn(line, 'Correct `settings` in setup; the README of gemma-ls lists them.')
    else
      health.info(line)
    end
  end
  local state = status.model.state
  if state == 'failed' then
    health.error('There is no model.', {
      ':Gemma model chooses one, and pulls it where it is missing.',
      'gemma-ls doctor tells what is on this machine.',
    })
  elseif state == 'ready' then
    health.ok('The model is ready.')
  end
end

local function keys()
  health.start('gemma: keys')
  local keymaps = require('gemma.config').options.keymaps
  if next(keymaps) then
    for name, lhs in vim.spairs(keymaps) do
      health.ok(('%s: %s'):format(name, lhs))
    end
    return
  end
  health.info("No key takes a suggestion yet. setup{ keymaps = { accept = '<Tab>' } } maps one. See |gemma-keys|.")
end

local function pictures()
  health.start('gemma: pictures from the clipboard')
  local clipboard = require('gemma.image').clipboard()
  if clipboard then
    health.ok(clipboard.program .. ' reads them.')
  else
    health.info('No program reads them here: wl-clipboard (Wayland), xclip (X11) or pngpaste (macOS) would.')
  end
end

--- Called by `:checkhealth gemma`.
function M.check()
  if neovim() and set_up() and program() then
    running()
    keys()
    pictures()
  end
end

return M
