export { discounted, subtotal, type Discount, type Line } from "./cart.js";
export { add, allocate, format, money, type Money } from "./money.js";
export { slug } from "./slug.js";
