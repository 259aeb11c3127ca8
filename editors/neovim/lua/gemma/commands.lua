-- stub
local M = {}
function M.create() end
return M
