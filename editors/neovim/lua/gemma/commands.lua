-- The command `:Gemma`: its subcommands, and their completion.
local message = require('gemma.message')

local M = {}

---@class gemma.Subcommand
---@field run fun(rest: string, command: vim.api.keyset.create_user_command.command_args)
---@field complete? fun(lead: string): string[]

-- The lines that were given, or nil.
---@param command table
---@return [integer, integer]?
local function range(command)
  return command.range > 0 and { command.line1, command.line2 } or nil
end

---@param kind gemma.chat.Kind
---@return gemma.Subcommand
local function asking(kind)
  return {
    run = function(rest, command)
      require('gemma.chat').chat({
        kind = kind,
        question = rest ~= '' and rest or nil,
        range = range(command),
        fresh = command.bang,
      })
    end,
  }
end

---@param name string of a function of `gemma.chat`
---@return gemma.Subcommand
local function on_answer(name)
  return {
    run = function()
      require('gemma.chat')[name]()
    end,
  }
end

-- The first word, in which a space may be escaped, and what follows.
---@param text string
---@return string? word
---@return string? rest
local function first_word(text)
  local escaped = text:gsub('\\ ', '\0')
  local word, rest = escaped:match('^(%S+)%s*(.*)$')
  local function plain(part)
    return part and part ~= '' and (part:gsub('%z', ' ')) or nil
  end
  return plain(word), plain(rest)
end

---@type table<string, gemma.Subcommand>
local subcommands = {
  chat = asking('ask'),
  explain = asking('explain'),
  document = asking('document'),
  tests = asking('tests'),
  fix = asking('fix'),
  image = {
    run = function(rest)
      local file, question = first_word(rest)
      require('gemma.image').explain(file, question)
    end,
    complete = function(lead)
      return vim.fn.getcompletion(lead, 'file')
    end,
  },
  yank = on_answer('yank'),
  insert = on_answer('insert'),
  apply = on_answer('apply'),
  stop = {
    run = function()
      require('gemma.models').stop()
      require('gemma.chat').stop()
    end,
  },
  status = {
    run = function()
      require('gemma.report').status()
    end,
  },
  stats = {
    run = function(rest)
      require('gemma.report').statistics(rest == 'reset')
    end,
    complete = function()
      return { 'reset' }
    end,
  },
  log = {
    run = function()
      require('gemma.report').log()
    end,
  },
  restart = {
    run = function()
      require('gemma.client').restart()
    end,
  },
  toggle = {
    run = function(rest)
      local gemma = require('gemma')
      if rest == 'filetype' then
        local on, filetype = gemma.toggle_filetype()
        message.info(('grey text in %s files is %s.'):format(filetype, on and 'on' or 'off'))
      else
        message.info(('grey text is %s.'):format(gemma.toggle() and 'on' or 'off'))
      end
    end,
    complete = function()
      return { 'filetype' }
    end,
  },
  model = {
    run = function(rest)
      local name = rest:match('^chat%s*(.*)$')
      local setting = name and 'chatModel' or 'model'
      name = name or rest
      require('gemma.models').select(setting, name ~= '' and name or nil)
    end,
    complete = function()
      return vim.list_extend({ 'chat' }, require('gemma.models').names)
    end,
  },
}

--- Carries `:Gemma` out.
---@param command table
function M.run(command)
  local name, rest = command.args:match('^%s*(%S*)%s*(.-)%s*$')
  local subcommand = subcommands[name == '' and 'status' or name]
  if not subcommand then
    message.error(('there is no :Gemma %s. There are %s.'):format(name, table.concat(M.names(''), ', ')))
  elseif not require('gemma').is_set_up() then
    message.error("call require('gemma').setup{} in your configuration first (see :help gemma-setup).")
  else
    subcommand.run(rest, command)
  end
end

---@param names string[]
---@param lead string
---@return string[]
local function beginning(names, lead)
  return vim.tbl_filter(function(name)
    return vim.startswith(name, lead)
  end, names)
end

--- The subcommands that begin so.
---@param lead string
---@return string[]
function M.names(lead)
  local names = vim.tbl_keys(subcommands)
  table.sort(names)
  return beginning(names, lead)
end

--- Completes the command line.
---@param lead string
---@param line string
---@return string[]
function M.complete(lead, line)
  local given = line:match('^.-Gemma!?%s+(.*)$') or ''
  local name = given:match('^(%S+)%s')
  if not name then
    return M.names(lead)
  end
  local subcommand = subcommands[name]
  if not (subcommand and subcommand.complete) then
    return {}
  end
  local candidates = subcommand.complete(lead)
  return name == 'image' and candidates or beginning(candidates, lead)
end

return M
