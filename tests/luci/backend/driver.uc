// Loads the backend as rpcd does, calls its methods and prints an answer a line.
//
//   ucode -L FOLDER/*.uc driver.uc BACKEND CALLS
//
// CALLS is a file with a list of [ method, arguments ].

'use strict';

import { readfile } from 'fs';

const methods = loadfile(ARGV[0], { raw_mode: true })()['luci.hearth'];

for (let wanted in json(readfile(ARGV[1]))) {
	let method = methods[wanted[0]], args = wanted[1] ?? {};
	// rpcd hands on only arguments that the method names, and only of the type that it names.
	for (let name, value in args)
		if (!exists(method.args ?? {}, name) || type(method.args[name]) != type(value))
			die(`rpcd would refuse ${name} of ${wanted[0]}`);
	printf('%J\n', method.call({ args, info: {} }));
}
