-- What the last suggestion cost, as the server says with its answer: for whoever wonders whether the cache works.
local M = {}

---@type string?
local last

---@param milliseconds number
---@return string
local function time(milliseconds)
  return milliseconds < 1 and 'less than 1 ms' or ('%.0f ms'):format(milliseconds)
end

--- Takes what the server says with an answer to `textDocument/inlineCompletion`.
---@param result any
function M.heard(result)
  local cost = type(result) == 'table' and result.gemma
  if type(cost) ~= 'table' then
    return
  end
  local asked, computed, first = cost.tokensAsked, cost.tokensComputed, cost.firstTokenMs
  local took = type(first) == 'number' and time(first)
  if type(asked) == 'number' and type(computed) == 'number' then
    last = ('%d of %d tokens computed'):format(computed, asked) .. (took and (', %s to the first'):format(took) or '')
  elseif cost.reason == 'shown' and took then
    last = ('nothing had to be computed, %s'):format(took)
  end
end

--- It in words; nothing where the server does not say.
---@return string?
function M.line()
  return last and 'last completion: ' .. last
end

--- Forgets it: the server that said it is gone.
function M.forget()
  last = nil
end

return M
