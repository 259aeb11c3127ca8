-- The options of `setup`, their defaults, and what is said when one is wrong.
local M = {}

---@class gemma.Settings what the server may be told; the README of gemma-ls has the table
---@field model? string
---@field adapter? string
---@field chatModel? string
---@field device? string
---@field threads? integer
---@field memoryBudgetMb? integer
---@field persistCacheMb? integer
---@field precision? 'fast'|'exact'
---@field kvFormat? 'f16'|'q8'
---@field quantize? 'none'|'q8_0'|'q4_0'|'q4_k_m'
---@field trigger? 'automatic'|'manual'
---@field aheadOfTime? boolean
---@field adaptiveDelay? boolean
---@field multiLine? 'auto'|'always'|'never'
---@field maxTokens? integer
---@field maxTimeMs? integer
---@field prefixTokens? integer
---@field suffixTokens? integer
---@field otherFilesTokens? integer
---@field speculation? boolean
---@field languagesOff? string[]
---@field filesOff? string[]
---@field secretFiles? string[]
---@field workspaceIndex? boolean
---@field fimOrder? 'psm'|'spm'|'spmMiddleLast'|'plain'
---@field fim? { prefix: integer, middle: integer, suffix: integer, separator: integer }
---@field statistics? boolean
---@field logLevel? 'error'|'warn'|'info'|'debug'|'trace'

---@class gemma.GhostOptions
---@field enabled? boolean whether grey text is shown before `:Gemma toggle`
---@field engine? 'auto'|'own' `auto`: the editor's inline completion on 0.12; `own`: ours there too
---@field debounce? integer milliseconds without a key before the server is asked (our engine only)

---@class gemma.ChatOptions
---@field position? 'right'|'left'|'below'|'above' where the split opens
---@field size? number columns or lines; below 1, a share of the screen
---@field max_tokens? integer the longest answer

---@class gemma.Keymaps insert-mode keys; none is set that is not named here
---@field accept? string
---@field accept_word? string
---@field accept_line? string
---@field next? string
---@field dismiss? string

---@class gemma.Options
---@field cmd? string[] how the server is started
---@field env? table<string, string> environment variables for it
---@field filetypes? string[] attach to these only
---@field root_markers? string[] what a project's folder has in it
---@field settings? gemma.Settings passed to the server
---@field ghost? gemma.GhostOptions
---@field chat? gemma.ChatOptions
---@field keymaps? gemma.Keymaps
---@field restarts? integer how often in a row a server that died is started again

--- What holds where the user says nothing.
---@type gemma.Options
M.defaults = {
  cmd = { 'gemma-ls', 'lsp' },
  root_markers = { '.git' },
  settings = {},
  ghost = { enabled = true, engine = 'auto', debounce = 30 },
  chat = { position = 'right', size = 0.4 },
  keymaps = {},
  restarts = 5,
}

--- The options in use.
---@type gemma.Options
M.options = vim.deepcopy(M.defaults)

---@class gemma.config.Rule
---@field is string what is expected, in words
---@field ok fun(value: any): boolean

---@param is string
---@return gemma.config.Rule
local function a(is)
  return {
    is = 'a ' .. is,
    ok = function(value)
      return type(value) == is
    end,
  }
end

---@param ... string
---@return gemma.config.Rule
local function one_of(...)
  local choices = { ... }
  return {
    is = 'one of ' .. table.concat(choices, ', '),
    ok = function(value)
      return vim.list_contains(choices, value)
    end,
  }
end

---@param least integer
---@return gemma.config.Rule
local function count_from(least)
  return {
    is = ('a whole number from %d'):format(least),
    ok = function(value)
      return type(value) == 'number' and value % 1 == 0 and value >= least
    end,
  }
end

---@type gemma.config.Rule
local texts = {
  is = 'a list of texts',
  ok = function(value)
    return vim.islist(value) and vim.iter(value):all(function(entry)
      return type(entry) == 'string'
    end)
  end,
}

---@type gemma.config.Rule
local key = a('string')

-- What is inside `settings` is the server's to judge: it knows its own settings, whichever version it is.
---@type table<string, gemma.config.Rule|table<string, gemma.config.Rule>>
local rules = {
  cmd = {
    is = 'a list of texts, such as { "gemma-ls", "lsp" }',
    ok = function(value)
      return texts.ok(value) and #value > 0
    end,
  },
  env = a('table'),
  filetypes = texts,
  root_markers = texts,
  settings = a('table'),
  ghost = {
    enabled = a('boolean'),
    engine = one_of('auto', 'own'),
    debounce = count_from(0),
  },
  chat = {
    position = one_of('right', 'left', 'below', 'above'),
    size = {
      is = 'a number above 0',
      ok = function(value)
        return type(value) == 'number' and value > 0
      end,
    },
    max_tokens = count_from(1),
  },
  keymaps = { accept = key, accept_word = key, accept_line = key, next = key, dismiss = key },
  restarts = count_from(0),
}

---@param rule gemma.config.Rule|table<string, gemma.config.Rule>
---@return boolean
local function is_rule(rule)
  return type(rule.ok) == 'function'
end

-- The known name that is closest to one that is not.
---@param name string
---@param known table<string, any>
---@return string
local function meant(name, known)
  local close = vim.fn.matchfuzzy(vim.tbl_keys(known), name)[1]
  return close and (' Did you mean %s?'):format(close) or ''
end

---@param given table
---@param allowed table<string, gemma.config.Rule|table<string, gemma.config.Rule>>
---@param prefix string
---@param problems string[]
---@return table valid
local function check(given, allowed, prefix, problems)
  local valid = {}
  for name, value in pairs(given) do
    local rule = allowed[name]
    local path = prefix .. tostring(name)
    if not rule then
      problems[#problems + 1] = ('there is no option %s.%s'):format(path, meant(tostring(name), allowed))
    elseif is_rule(rule) and rule.ok(value) then
      valid[name] = value
    elseif not is_rule(rule) and type(value) == 'table' then
      valid[name] = check(value, rule --[[@as table]], path .. '.', problems)
    else
      local expected = is_rule(rule) and rule.is or 'a table'
      problems[#problems + 1] = ('%s is to be %s, not %s.'):format(path, expected, vim.inspect(value))
    end
  end
  return valid
end

--- Takes the user's options; what is wrong is left at its default, and said.
---@param given? gemma.Options
---@return string[] problems one sentence each
function M.set(given)
  local problems = {}
  if given ~= nil and type(given) ~= 'table' then
    given = nil
    problems[1] = 'setup wants a table of options.'
  end
  M.options = vim.tbl_deep_extend('force', M.defaults, check(given or {}, rules, '', problems))
  return problems
end

return M
