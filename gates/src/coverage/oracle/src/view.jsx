import { h } from "./h.js";
/** @jsx h */
/** @jsxFrag "f" */
export function View({ name, items }) {
  if (!items) {
    return <p>nothing /* here */ // or there</p>;
  }
  return (
    <ul
      className="list" // a comment in a tag
      data-x={name ? "a" : "b"}
    >
      {items.map((item) => (
        <li key={item}>/* {item} don't</li>
      ))}
      {/* a comment */}
      {name && <b>{`${name}`}</b>}
      <>
        text */ more
      </>
    </ul>
  );
}
