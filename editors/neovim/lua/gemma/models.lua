-- Which model runs: those on this machine and those that can be pulled, to choose from.
local config = require('gemma.config')
local client_of = require('gemma.client')
local message = require('gemma.message')

local M = {}

---@class gemma.Model
---@field name string
---@field bytes integer
---@field installed boolean
---@field infill boolean
---@field instructed boolean
---@field pictures boolean
---@field page? string

--- The names that were last heard of, for completion on the command line.
---@type string[]
M.names = {}

---@param bytes integer
---@return string
local function size(bytes)
  return bytes >= 1e9 and ('%.1f GB'):format(bytes / 1e9) or ('%d MB'):format(math.ceil(bytes / 1e6))
end

---@param model gemma.Model
---@param current? string
---@return string
local function line(model, current)
  local parts = { model.name, size(model.bytes) }
  if model.infill then
    parts[#parts + 1] = 'made for code'
  end
  if model.instructed then
    parts[#parts + 1] = 'follows instructions'
  end
  if model.pictures then
    parts[#parts + 1] = 'sees pictures'
  end
  if not model.installed then
    parts[#parts + 1] = 'to be pulled'
  end
  return (model.name == current and '* ' or '  ') .. table.concat(parts, ', ')
end

---@param setting 'model'|'chatModel'
---@param name string
local function use(setting, name)
  config.options.settings[setting] = name
  client_of.settings_changed()
  message.info(('%s is now %s. To keep it: setup{ settings = { %s = %q } }.'):format(setting, name, setting, name))
end

---@param text string
local function show(text)
  vim.api.nvim_echo({ { 'gemma: ' .. text } }, false, {})
end

---@type { client: vim.lsp.Client, request: integer }?
local pulling

--- Stops a download; what is there is kept for the next time.
---@return boolean stopped
function M.stop()
  if not pulling then
    return false
  end
  pulling.client:cancel_request(pulling.request)
  return true
end

---@param name string
---@param done fun()
local function pull(name, done)
  if pulling then
    message.warn('a model is being pulled already. :Gemma stop stops that.')
    return
  end
  local token = client_of.listen(function(value)
    if value.kind ~= 'end' then
      local percent = value.percentage and (' %d %%'):format(value.percentage) or ''
      show(('pulling %s%s %s'):format(name, percent, value.message or ''))
    end
  end)
  client_of.with(function(client)
    local function ended()
      pulling = nil
      client_of.unlisten(token)
    end
    local forget = client_of.at_end(ended)
    local _, request = client:request('gemma/pullModel', { name = name, workDoneToken = token }, function(err)
      ended()
      forget()
      if err then
        message.error(message.of(err))
      else
        done()
      end
    end)
    pulling = request and { client = client, request = request } or nil
  end)
end

---@param setting 'model'|'chatModel'
---@param model gemma.Model
local function choose(setting, model)
  if model.installed then
    use(setting, model.name)
    return
  end
  local question = ('Pull %s (%s)?'):format(model.name, size(model.bytes))
  local licence = model.page and ('\nIts licence has to be accepted first: ' .. model.page) or ''
  if vim.fn.confirm(question .. licence, '&Yes\n&No', 1) == 1 then
    pull(model.name, function()
      use(setting, model.name)
    end)
  end
end

--- Chooses a model; without a name, from a list.
---@param setting 'model'|'chatModel'
---@param name? string
function M.select(setting, name)
  client_of.request('gemma/models', vim.empty_dict(), function(answer)
    M.names = vim.tbl_map(function(model)
      return model.name
    end, answer.models)
    if name then
      local model = vim.iter(answer.models):find(function(candidate)
        return candidate.name == name
      end)
      -- A path or a hub's name: the server knows more than its list.
      choose(setting, model or { name = name, installed = true, bytes = 0 })
      return
    end
    vim.ui.select(answer.models, {
      prompt = setting == 'model' and 'Model that completes' or 'Model that answers questions',
      format_item = function(model)
        return line(model, config.options.settings[setting] or setting == 'model' and answer.current or nil)
      end,
    }, function(model)
      if model then
        choose(setting, model)
      end
    end)
  end)
end

return M
