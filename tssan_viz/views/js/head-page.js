// The head view alone, for its own page: small enough to come as it is, with nothing to unpack first.

import { headView } from "./head-view.js";
import { hosting } from "./host.js";

export const { mount } = hosting({ head: headView });
