// Reads JSON lines {"svg", "file"} from standard input and writes each drawing as a PNG of the given width.
// Usage: node rasterise.cjs FOLDER_OF_NODE_MODULES WIDTH
const { writeFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const { createInterface } = require("node:readline");

const [folder, width] = process.argv.slice(2);
const { Resvg } = createRequire(`${folder}/`)("@resvg/resvg-js");

createInterface({ input: process.stdin }).on("line", (line) => {
  const { svg, file } = JSON.parse(line);
  const drawing = new Resvg(svg, { fitTo: { mode: "width", value: Number(width) }, font: { loadSystemFonts: false } });
  writeFileSync(file, drawing.render().asPng());
});
