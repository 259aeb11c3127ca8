-- stub
local M = {}
function M.server_ended() end
return M
