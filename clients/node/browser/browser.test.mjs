// All in one process: one browser is enough.

import './fetch.mjs'
import './login.mjs'
import './neon.mjs'
import './websocket.mjs'
import './admin.mjs'
import './bindings.mjs'
import './deployments.mjs'
import './refused.mjs'
import './covered.mjs'
