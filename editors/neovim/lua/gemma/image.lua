-- Pictures: from a file, or from the clipboard by whichever program this machine has for it.
local message = require('gemma.message')

local M = {}

---@class gemma.image.Clipboard
---@field program string
---@field command string[] writes a PNG to its standard output
---@field fits fun(): boolean

-- PowerShell writes bytes as text, hence the detour by base64.
local POWERSHELL = table.concat({
  'Add-Type -AssemblyName System.Windows.Forms;',
  '$picture = [System.Windows.Forms.Clipboard]::GetImage();',
  'if ($picture -ne $null) {',
  '$stream = New-Object System.IO.MemoryStream;',
  '$picture.Save($stream, [System.Drawing.Imaging.ImageFormat]::Png);',
  '[Convert]::ToBase64String($stream.ToArray()) }',
}, ' ')

---@type gemma.image.Clipboard[]
M.clipboards = {
  {
    program = 'wl-paste',
    command = { 'wl-paste', '--type', 'image/png' },
    fits = function()
      return vim.env.WAYLAND_DISPLAY ~= nil
    end,
  },
  {
    program = 'xclip',
    command = { 'xclip', '-selection', 'clipboard', '-target', 'image/png', '-out' },
    fits = function()
      return vim.env.DISPLAY ~= nil
    end,
  },
  {
    program = 'pngpaste',
    command = { 'pngpaste', '-' },
    fits = function()
      return vim.fn.has('mac') == 1
    end,
  },
  {
    program = 'powershell.exe',
    command = { 'powershell.exe', '-NoProfile', '-STA', '-Command', POWERSHELL },
    fits = function()
      return vim.fn.has('win32') == 1 or vim.fn.has('wsl') == 1
    end,
  },
}

--- The program that reads pictures from this machine's clipboard.
---@return gemma.image.Clipboard?
function M.clipboard()
  return vim.iter(M.clipboards):find(function(clipboard)
    return clipboard.fits() and vim.fn.executable(clipboard.program) == 1
  end)
end

---@param question? string
local function from_clipboard(question)
  local clipboard = M.clipboard()
  if not clipboard then
    message.error(
      'no program reads pictures from the clipboard here. '
        .. 'Install wl-clipboard (Wayland), xclip (X11) or pngpaste (macOS).'
    )
    return
  end
  vim.system(
    clipboard.command,
    {},
    vim.schedule_wrap(function(done)
      local bytes = done.stdout or ''
      if done.code ~= 0 or bytes == '' then
        message.warn('there is no picture in the clipboard.')
        return
      end
      local data = clipboard.program == 'powershell.exe' and bytes:gsub('%s', '') or vim.base64.encode(bytes)
      require('gemma.chat').image({ data = data, name = 'the picture in the clipboard' }, question)
    end)
  )
end

--- Asks about a picture.
---@param file? string the clipboard's where it is missing
---@param question? string
function M.explain(file, question)
  if not file then
    from_clipboard(question)
    return
  end
  local path = vim.fs.abspath(vim.fs.normalize(file))
  if vim.fn.filereadable(path) == 0 then
    message.error(('the file %s cannot be read.'):format(path))
    return
  end
  require('gemma.chat').image({ uri = vim.uri_from_fname(path), name = vim.fs.basename(path) }, question)
end

return M
